"""Plain programs, as users of the blocking client write them; each runs in a process of its own.

    python -m tests.standalone.programs NAME URI

One that ends with 0 has found everything as it should be; what it prints is what its test looks at besides.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from txservices import exceptions
from txservices.amqp.publish import unconfirmed_of
from txservices.standalone import blocking
from txservices.standalone.blocking import ClusterRpcProxy, ServiceRpcProxy, event_dispatcher
from txservices.standalone.reactor_thread import current

NAME, URI = sys.argv[1:] or ("", "")
END_AFTER = 60  # seconds, whatever happens: nothing is left of a test that went wrong
CONFIG: dict[str, Any] = {"AMQP_URI": URI, "RPC_TIMEOUT": 60}


def fails(error: type[BaseException], call: Callable[[], Any]) -> Any:
    """The error that a call must raise."""
    try:
        result = call()
    except error as raised:
        return raised
    raise AssertionError(f"no {error.__name__}, but {result!r}")


def equal(one: Any, other: Any) -> None:
    if one != other:
        raise AssertionError(f"{one!r} is not {other!r}")


def echo(value: Any) -> Any:
    """A view: connects, calls, and is done."""
    with ClusterRpcProxy(CONFIG) as rpc:
        return rpc.far.echo(value)


def in_threads(number: int, function: Callable[[int], Any]) -> list[Any]:
    """The results of a function for 0, 1, 2, …, each in a thread."""
    results: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda n=n: results.update({n: function(n)})) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results.get(n) for n in range(number)]


def in_children(number: int, function: Callable[[], None]) -> None:
    """Run a function in that many forked processes at once, each of which must end well."""
    children = []
    for _ in range(number):
        child = os.fork()
        if not child:
            signal.alarm(END_AFTER)
            function()
            sys.exit(0)
        children.append(child)
    equal([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], [0] * number)


# The programs ---------------------------------------------------------------------------------------------------------


def script() -> None:
    with ClusterRpcProxy(CONFIG) as rpc:
        equal(rpc.far.echo("ø"), "ø")
        equal(rpc["far-too"].echo(1), 1)
        first, second = rpc.far.echo.call_async(1), rpc.far.echo.call_async(2)
        equal([second.result(), first.result(), first.result()], [2, 1, 1])
        equal(rpc.far.echo.options(timeout=5, priority=1)(3), 3)
        equal(str(fails(exceptions.RemoteError, rpc.far.fail)), "ValueError on purpose")
        fails(exceptions.UnknownService, rpc.nobody.method)
        fails(exceptions.UnknownService, rpc.nobody.method.call_async().result)
        fails(exceptions.MethodNotFound, rpc.far.nothing)
        fails(exceptions.IncorrectSignature, rpc.far.echo)
        fails(exceptions.EncodeError, lambda: rpc.far.echo(object()))
        fails(exceptions.EncodeError, lambda: rpc.far.echo.call_async(object()))
        equal(rpc.far.echo("still"), "still")
    with ClusterRpcProxy(CONFIG, {"language": "da"}) as rpc:
        equal(rpc.far.language(), "da")
    with ServiceRpcProxy("far", CONFIG) as far:
        equal(far.echo(1), 1)


def traced() -> None:
    """Calls of several threads are part of the traces of their threads."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    CONFIG["TRACES"] = True

    def view(number: int) -> Any:
        with provider.get_tracer("view").start_as_current_span("view") as span:
            equal(echo(number), number)
            return span.get_span_context().span_id

    views = in_threads(5, view)
    calls = [span.parent.span_id for span in exporter.get_finished_spans() if span.name == "far.echo" and span.parent]
    equal(sorted(calls), sorted(views))


def start_and_stop() -> None:
    proxy = ClusterRpcProxy(CONFIG)
    proxy.stop()
    equal("twisted.internet.reactor" in sys.modules, False)  # nothing has begun: a fork costs nothing yet
    rpc = proxy.start()
    proxy.start()
    proxy.stop()
    equal(rpc.far.echo(1), 1)
    proxy.stop()
    fails(RuntimeError, lambda: rpc.far.echo(1))
    proxy.start()
    equal(rpc.far.echo(2), 2)
    rpc.far.hear.call_async("said at the end")  # and nobody stops the proxy


def timeouts() -> None:
    for over in (0, -1):  # before there is a connection that may be used again
        fails(exceptions.RpcConnectionError, ClusterRpcProxy(CONFIG, timeout=over).start)
    with ClusterRpcProxy(CONFIG) as rpc:
        never = rpc.far.never.options(timeout=0.2)
        equal(fails(exceptions.RpcTimeout, never).timeout, 0.2)
        fails(exceptions.RpcTimeout, never.call_async().result)
        equal(rpc.far.echo(1), 1)


def interrupted() -> None:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with ClusterRpcProxy(CONFIG) as rpc:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        fails(KeyboardInterrupt, rpc.far.never)
        equal(rpc.far.echo(1), 1)


def no_broker() -> None:
    nowhere = {"AMQP_URI": "amqp://me:secret@127.0.0.1:1/"}
    error = fails(exceptions.RpcConnectionError, ClusterRpcProxy(nowhere, timeout=0.5).start)
    equal("secret" in str(error), False)
    wrong = {"AMQP_URI": URI.replace("guest@", "wrong@")}
    fails(exceptions.BrokerRefused, ClusterRpcProxy(wrong).start)
    fails(exceptions.ConfigurationError, ClusterRpcProxy({}).start)
    fails(TypeError, lambda: ClusterRpcProxy(CONFIG, unknown_option=1))  # type: ignore[call-arg]  # the mistake
    equal(echo(1), 1)


def events() -> None:
    dispatch = event_dispatcher(CONFIG)
    dispatch("source", "type", {"a": "ø"})
    dispatch("source", "type", "later", delay=0.02)
    fails(ValueError, lambda: dispatch("source", "type", 1, delay=-1))
    fails(exceptions.ChannelClosedByBroker, lambda: dispatch("nobody", "type", 1))
    with event_dispatcher(CONFIG, mandatory=True) as must:
        fails(exceptions.UndeliverableMessage, lambda: must("source", "unheard", 1))
        fails(exceptions.EncodeError, lambda: must("source", "type", object()))
    fails(RuntimeError, lambda: must("source", "type", 1))
    event_dispatcher(CONFIG, use_confirms=False)("source", "type", "the last")


def threads() -> None:
    with ClusterRpcProxy(CONFIG) as rpc:
        values = in_threads(10, lambda n: [rpc.far.echo(n * i) for i in range(10)])
        equal(values, [[n * i for i in range(10)] for n in range(10)])
        equal(in_threads(10, echo), list(range(10)))
        equal(len(current().services.services), 1)
        print("working", flush=True)
        rpc.far.echo_when_told(1)


def linger() -> None:
    blocking.LINGER = 0.1
    with ClusterRpcProxy({**CONFIG, "another": "configuration"}) as other:
        equal([echo(1), echo(2)], [1, 2])
        equal(other.far.echo_when_told(1), 1)
        equal(echo(3), 3)


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request, as Flask's and Django's own servers have it."""


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Not on stderr."""


def wsgi() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = echo(environ["PATH_INFO"]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    server = make_server("127.0.0.1", 0, app, Server, Quiet)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"listening at {server.server_port}", flush=True)
    server.serve_forever()


# Forks, and other people's reactors -----------------------------------------------------------------------------------


def fork_first() -> None:
    """As servers do that load the program and fork their workers then."""
    proxy = ClusterRpcProxy(CONFIG)

    def work() -> None:
        with proxy as rpc:
            equal(in_threads(3, rpc.far.echo), [0, 1, 2])

    in_children(3, work)
    equal("twisted.internet.reactor" in sys.modules, False)


def fork_with_idle_reactor() -> None:
    """A reactor that the program has imported, and does not run: what its poll waits on is the children's too."""
    import twisted.internet.reactor  # noqa: F401

    in_children(3, lambda: equal(in_threads(3, echo), [0, 1, 2]))
    equal(echo(1), 1)


def fork_later() -> None:
    """Out of the middle of everything."""
    with ClusterRpcProxy(CONFIG) as rpc:
        dispatch = event_dispatcher(CONFIG)
        equal(rpc.far.echo(1), 1)
        pending = rpc.far.echo_when_told.call_async("the parent's")
        arrived = rpc.far.echo.call_async("known")
        arrived.result()

        def work() -> None:
            equal(in_threads(5, rpc.far.echo), [0, 1, 2, 3, 4])  # with the proxy that the parent has started
            equal(echo("own"), "own")
            dispatch("source", "type", "from a child")
            fails(exceptions.RpcConnectionError, pending.result)
            equal(arrived.result(), "known")
            in_children(1, lambda: equal(echo("grandchild"), "grandchild"))

        in_children(2, work)
        rpc.far.tell()
        equal([rpc.far.echo(2), pending.result()], [2, "the parent's"])
        in_threads(1, lambda _: in_children(1, lambda: equal(echo(3), 3)))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            equal(pool.map(echo, range(6)), list(range(6)))
        equal(rpc.far.echo(4), 4)


def fork_with_unconfirmed() -> None:
    """The broker has yet to confirm a message of the parent's: a child that stops does not wait for that."""
    proxy = ClusterRpcProxy(CONFIG)
    rpc = proxy.start()
    equal(rpc.far.echo(1), 1)
    parents = unconfirmed_of(proxy.caller)
    parents.add()

    def work() -> None:
        equal(rpc.far.echo(2), 2)
        proxy.stop()

    in_children(1, work)
    parents.remove()
    proxy.stop()


def crochet_of_the_program() -> None:
    """The program uses crochet itself, and after a fork as well."""
    import crochet

    crochet.setup()

    @crochet.run_in_reactor
    def own() -> str:
        return "own"

    equal([own().wait(5), echo(1)], ["own", 1])
    in_children(2, lambda: equal([echo(2), own().wait(5)], [2, "own"]))
    equal([own().wait(5), echo(3)], ["own", 3])


def reactor_of_the_program() -> None:
    """Threads of a program that is Twisted's, such as the views that ``twistd web --wsgi`` serves."""
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThread

    def done(result: Any) -> None:
        print(result)
        fails(RuntimeError, lambda: echo(1))  # in the reactor's own thread
        reactor.stop()

    reactor.callWhenRunning(lambda: deferToThread(echo, "by its thread").addBoth(done))
    reactor.run()
    in_threads(1, lambda _: fails(exceptions.RpcConnectionError, lambda: echo(1)) and print("it has ended"))


def reactor_thread_of_the_program() -> None:
    """The program runs the reactor in a thread that it has begun itself."""
    from twisted.internet import reactor

    own = threading.Thread(target=reactor.run, args=(False,))
    own.start()
    equal(echo(1), 1)
    reactor.callFromThread(reactor.stop)
    own.join()
    fails(exceptions.RpcConnectionError, lambda: echo(1))


def reactor_that_has_ended() -> None:
    """A reactor can't be run twice: a call that comes after it says so, and does not wait for ever."""
    from twisted.internet import reactor

    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    in_threads(1, lambda _: fails(exceptions.RpcConnectionError, lambda: echo(1)) and print("it has ended"))


if __name__ == "__main__":
    signal.alarm(END_AFTER)
    globals()[NAME]()
