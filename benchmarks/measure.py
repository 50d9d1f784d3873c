"""The measurements. Each one starts a service, has a caller take its turns, and gives a dict of figures.

The figures are called `rate`, `p50`, `p99`, `seconds`, `megabytes`, `kibibytes` and `processor` everywhere; `rows` says
which of them counts. `processor` is the processor time of the service: in microseconds a call or request, and in
milliseconds for a body of 100 MB.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load
from benchmarks.children import TIMEOUT, Child, Failed, running
from benchmarks.environment import ours_python, peers_python
from benchmarks.peers import contract, rawwire
from tests import rabbitmq

Figures = dict[str, float]

OURS = {"txservices", "txamqp", "ceiling"}  # run where txservices is installed
MODULES = {"ceiling": "benchmarks.peers.ceiling"}
EMBEDDED = "embedded"
GET = load.Request("/items/42")
POST = load.Request("/items", '{"text": "%s"}' % ("x" * 1012))  # 1 KB in all
CALL = load.Request("/call/42")
FILE = load.Request(f"/assets/{contract.FILE}")
TRANSFERRED = 100 * 1000 * 1000  # bytes
TRANSFERS = 5
IDLE = 1.0  # seconds after which a service that was called once counts as idle
TRY_AGAIN = 0.002


@dataclass
class Bench:
    """The broker of a run, and how much is measured: all measurements of the run share these."""

    node: rabbitmq.Node
    seconds: float
    scale: float = 1.0  # multiplies the numbers of messages
    vhosts: dict[str, str] = field(default_factory=dict)

    def uri(self, owner: str) -> str:
        """A virtual host for each peer: their queues have the same names."""
        if owner not in self.vhosts:
            self.vhosts[owner] = self.node.new_vhost()
        return self.node.uri(self.vhosts[owner])

    @property
    def amount(self) -> str:
        return f"{self.seconds}s"

    def number(self, full: int) -> int:
        return max(1, int(full * self.scale))


def python_of(peer: str) -> str:
    return ours_python() if peer in OURS else peers_python()


def command(peer: str, action: str, work: str, uri: str, *options: object) -> list[str]:
    module = MODULES.get(peer, f"benchmarks.peers.{peer.replace('-', '_')}_peer")
    return [python_of(peer), "-m", module, action, work, uri, *map(str, options)]


@contextmanager
def serving(peer: str, work: str, uri: str, *options: object) -> Iterator[Child]:
    with running(command(peer, "serve", work, uri, *options)) as service:
        service.line("ready|running:")
        yield service


def called(peer: str, work: str, uri: str, *options: object) -> Figures:
    with running(command(peer, "call", work, uri, *options)) as caller:
        return caller.json(TIMEOUT * 5)


def rpc(bench: Bench, peer: str, in_flight: int, *options: object, caller: str = "", amount: str = "") -> Figures:
    """Calls of one process by another."""
    uri = bench.uri(peer)
    with serving(peer, "rpc", uri, *options) as service:
        before = service.processor()
        figures = called(caller or peer, "rpc", uri, amount or bench.amount, in_flight, *options)
        calls = figures["rate"] * (figures["seconds"] + contract.WARM_UP)
        return {**figures, "processor": (service.processor() - before) / calls * 1e6}


def embedded_rpc(bench: Bench, in_flight: int) -> Figures:
    """Calls, with the broker inside the service's process."""
    port = f"--port={rabbitmq.free_port()}"
    with serving("txservices", "rpc", EMBEDDED, port):
        return called("txservices", "rpc", EMBEDDED, bench.amount, in_flight, port)


def events(bench: Bench, peer: str, in_flight: int) -> Figures:
    return events_through(bench, peer, bench.uri(peer), in_flight)


def embedded_events(bench: Bench, in_flight: int) -> Figures:
    return events_through(bench, "txservices", EMBEDDED, in_flight, f"--port={rabbitmq.free_port()}")


def events_through(bench: Bench, peer: str, uri: str, in_flight: int, *options: str) -> Figures:
    """Events that one process dispatches and another handles, timed from the first sent to the last handled."""
    with serving(peer, "events", uri, *options) as listener:
        sent = called(peer, "events", uri, bench.amount, in_flight, *options)
        handled = listener.json()
    return {"rate": sent["turns"] / (max(handled["last"], sent["confirmed"]) - sent["began"])}


def overload(bench: Bench, rate: float) -> Figures:
    """Calls answered in time, of those that begin at a rate; 0 for as many at a time as there are workers."""
    argv = [ours_python(), "-m", "benchmarks.peers.overload"]
    uri = bench.node.uri(bench.node.new_vhost())
    with running([*argv, "serve", uri]) as service:
        service.line("ready")
        with running([*argv, "call", uri, str(2 * bench.seconds), str(rate)]) as caller:
            return caller.json(TIMEOUT)


def backlog(bench: Bench, number: int) -> Figures:
    """Events that waited in the queue before their service started."""
    uri = bench.node.uri(bench.node.new_vhost())
    with serving("txservices", "events", uri):
        pass  # the queue is there now
    called("txservices", "events", uri, bench.number(number), 200)
    with serving("txservices", "events", uri) as listener:
        handled = listener.json(TIMEOUT * 2)
    return {"rate": handled["handled"] / (handled["last"] - handled["first"])}


def http(bench: Bench, peer: str, request: load.Request) -> Figures:
    port = rabbitmq.free_port()
    with running(command(peer, "serve", "http", bench.uri(peer), f"--port={port}")) as service:
        load.ready(request, port)
        before = service.processor()
        rate = load.rate(request, port, bench.seconds)
        requests = rate * (bench.seconds + load.WARM_UP)
        return {"rate": rate, "processor": (service.processor() - before) / requests * 1e6}


def transfer(bench: Bench, peer: str, send: Callable[[int, int], float]) -> Figures:
    """A body of 100 MB, sent one way. ``processor`` is the service's time for it, in milliseconds."""
    port = rabbitmq.free_port()
    size = bench.number(TRANSFERRED // load.PIECE) * load.PIECE
    with running(command(peer, "serve", "http", bench.uri(peer), f"--port={port}")) as service:
        load.ready(GET, port)
        send(port, load.PIECE)
        before = service.processor()
        seconds = sum(send(port, size) for _ in range(TRANSFERS))
        processor = (service.processor() - before) / TRANSFERS * TRANSFERRED / size
        megabytes = service.resident(most=True)
    return {"rate": size * TRANSFERS / seconds / 1e6, "processor": processor * 1e3, "megabytes": megabytes}


def idle(bench: Bench, peer: str, connections: int) -> Figures:
    """The memory of a connection that is kept open after its first answer."""
    port, number = rabbitmq.free_port(), bench.number(connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with running(command(peer, "serve", "http", bench.uri(peer), f"--port={port}")) as service, ExitStack() as stack:
        load.ready(GET, port)
        for count in (number // 10, number):  # with the first ones come modules and caches
            before = service.resident()
            for sock in load.idle(GET, port, count):
                stack.enter_context(sock)
            time.sleep(IDLE)
        kibibytes = (service.resident() - before) * 1e6 / 1024 / number
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return {"kibibytes": kibibytes}


def http_rpc(bench: Bench, peer: str, service: str = "") -> Figures:
    """Requests to one process, which makes a call to another for each request."""
    port, uri = rabbitmq.free_port(), bench.uri(service or peer)
    with ExitStack() as stack:
        stack.enter_context(serving(service or peer, "rpc", uri))
        stack.enter_context(running(command(peer, "serve", "http-rpc", uri, f"--port={port}")))
        load.ready(CALL, port)
        return {"rate": load.rate(CALL, port, bench.seconds)}


def start(bench: Bench, peer: str) -> Figures:
    """The time from the start of a process, as a user starts it, to the answer to a call; and its memory then."""
    uri = bench.uri(peer)
    wire = rawwire.Wire(uri)
    wire.socket.settimeout(TIMEOUT)
    body = b'{"args": ["hello"], "kwargs": {}}'
    request = rawwire.message(f"{contract.NAME}.echo", body, wire.listen_for_replies(), rawwire.stack_header(1))
    argv = [str(Path(python_of(peer)).parent / peer), "run", "--broker", uri, f"benchmarks.peers.{peer}_echo"]
    began = time.perf_counter()
    with running(argv) as service:
        while not answered(wire, request):
            if service.process.poll() is not None:
                raise Failed(f"ended before it answered: {service.complaint()}")
            time.sleep(TRY_AGAIN)
        seconds = time.perf_counter() - began
        time.sleep(IDLE)
        megabytes = service.resident()
    wire.socket.close()
    return {"seconds": seconds, "megabytes": megabytes}


def answered(wire: rawwire.Wire, request: bytes) -> bool:
    """Whether the call is answered. It is False at once if nobody has declared a queue for it."""
    wire.socket.sendall(request)
    while True:
        for kind, payload in wire.frames():
            if kind == rawwire.METHOD_FRAME and payload[:4] in (rawwire.RETURN, rawwire.DELIVER):
                return payload[:4] == rawwire.DELIVER
