"""The blocking client in programs as its users have them: processes without a reactor, with threads and forks.

Never in the process of the tests: there is a reactor here, and it can't be begun in a thread.
"""

from __future__ import annotations

from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults

from tests import processes, rabbitmq
from tests.services import ServicesCase
from txservices.broker.memory import brokers
from txservices.contextdata import Language
from txservices.events import EventDispatcher, event_handler
from txservices.rpc import rpc
from txservices.testing.waiting import Heard


class BlockingCase(ServicesCase):
    """A broker that is reached by TCP, and the services that the programs call."""

    async def setUp(self) -> None:
        super().setUp()
        self.config["AMQP_URI"] = await self.uri()
        self.heard, self.told = heard, told = Heard(), Deferred[Any]()
        waiting: list[Deferred[Any]] = []

        class Far:
            name = "far"
            lang = Language()
            dispatch = EventDispatcher()

            @rpc
            def echo(self, value):
                return value

            @rpc
            def fail(self):
                raise ValueError("on purpose")

            @rpc
            def language(self):
                return self.lang

            @rpc
            def never(self):
                waiting.append(Deferred())
                return waiting[-1]

            @rpc
            async def echo_when_told(self, value):
                await told
                return value

            @rpc
            def tell(self):
                told.callback(None)

            @rpc
            @event_handler("source", "type")
            def hear(self, value):
                heard(value)

        class FarToo(Far):
            name = "far-too"
            hear = None

        async def end_waiting() -> None:
            for waiter in waiting:
                waiter.callback(None)

        await self.start(Far, FarToo)
        self.addCleanup(end_waiting)

    async def uri(self) -> str:
        uri = await self.stage.listen()
        self.broker = brokers[self.stage.broker]
        return uri

    def program(self, name: str) -> processes.Process:
        return processes.python(self, "-m", "tests.standalone.programs", name, self.config["AMQP_URI"])

    async def succeeds(self, name: str) -> processes.Process:
        """A program ends with 0, and has nothing to complain of."""
        program = self.program(name)
        await processes.succeed(program)
        self.assertNotIn("Traceback", program.stderr, str(program))
        return program


class Programs(BlockingCase):
    """Programs of one process."""

    async def test_script(self) -> None:
        """Calls wait and give values, ``call_async`` gives them later, and errors are raised as themselves."""
        await self.succeeds("script")
        self.flushLoggedErrors(ValueError)

    async def test_start_and_stop(self) -> None:
        """A proxy starts and stops by hand, again too; what was called last gets out though nobody stops it."""
        await self.succeeds("start_and_stop")
        self.assertEqual(await self.heard.wait(), ["said at the end"])

    async def test_timeouts(self) -> None:
        """A call's time is up when it is; the proxy goes on."""
        await self.succeeds("timeouts")

    async def test_interrupted(self) -> None:
        """Ctrl-C ends the wait and leaves the proxy usable."""
        await self.succeeds("interrupted")

    async def test_no_broker(self) -> None:
        """No broker, one that refuses us, and no address are errors of ``start``, and harm nobody else."""
        await self.succeeds("no_broker")

    async def test_events(self) -> None:
        """Events are confirmed when ``dispatch`` returns, or fail as themselves; the last, and later ones, get out."""
        await self.succeeds("events")
        heard = await self.heard.wait(3)
        self.assertEqual(([each for each in heard if each != "later"], len(heard)), ([{"a": "ø"}, "the last"], 3))

    async def test_threads(self) -> None:
        """Any number of threads and proxies have one pair of connections, of which nothing is left."""
        before = len(self.broker.sessions)
        program = self.program("threads")
        await program.line("working")
        self.assertEqual(len(self.broker.sessions), before + 2)
        self.told.callback(None)
        await processes.succeed(program)
        self.assertEqual(len(self.broker.sessions), before)

    async def test_traced(self) -> None:
        """A call is part of the trace of the thread that makes it."""
        await self.succeeds("traced")

    async def test_linger(self) -> None:
        """Connections that nobody uses any more are closed after a while, one configuration's without another's."""
        before, removed, remove = len(self.broker.sessions), Heard(), self.broker.remove
        self.patch(self.broker, "remove", lambda session: removed(remove(session)))
        program = self.program("linger")
        await removed.wait(2)
        self.assertEqual(len(self.broker.sessions), before + 2)
        self.told.callback(None)
        await processes.succeed(program)

    async def test_wsgi(self) -> None:
        """Views that connect at each request, in a thread each; the server ends when it is told to."""
        server = self.program("wsgi")
        port = (await server.line(r"listening at (\d+)"))[1]
        paths = [f"/{number}" for number in range(20)]
        answers = gatherResults([get(f"http://127.0.0.1:{port}{path}") for path in paths])
        self.assertEqual(await answers, paths)
        await processes.stopped(server)

    async def test_reactor_of_the_program(self) -> None:
        """A reactor that runs already is the one; whoever waits in its own thread is told."""
        program = await self.succeeds("reactor_of_the_program")
        self.assertEqual(program.stdout, "by its thread\nit has ended\n")

    async def test_reactor_thread_of_the_program(self) -> None:
        """So is one that the program runs in a thread; calls fail once it has stopped."""
        await self.succeeds("reactor_thread_of_the_program")

    async def test_reactor_that_has_ended(self) -> None:
        """Where the program's reactor has run and ended before the first call, that call fails."""
        program = await self.succeeds("reactor_that_has_ended")
        self.assertEqual(program.stdout, "it has ended\n")


class Forks(BlockingCase):
    """Programs that fork. Each child has a reactor and connections of its own."""

    async def test_fork_first(self) -> None:
        """Workers that are forked before any call, from a parent that made the proxy."""
        await self.succeeds("fork_first")

    async def test_fork_with_idle_reactor(self) -> None:
        """Workers of a parent that has imported a reactor."""
        await self.succeeds("fork_with_idle_reactor")

    async def test_fork_later(self) -> None:
        """Children of a process in the middle of its calls go on with its proxies, and leave it alone."""
        await self.succeeds("fork_later")
        self.assertEqual(await self.heard.wait(2), ["from a child"] * 2)

    async def test_fork_with_unconfirmed(self) -> None:
        """A child does not wait for the broker's answers to its parent."""
        await self.succeeds("fork_with_unconfirmed")

    async def test_crochet_of_the_program(self) -> None:
        """The program's own use of crochet goes on, on both sides of a fork."""
        await self.succeeds("crochet_of_the_program")


class OnRabbitMQ(BlockingCase):
    """The same where most programs will have it."""

    skip = rabbitmq.skip

    async def uri(self) -> str:
        node = rabbitmq.node()
        return node.uri(node.new_vhost())

    async def test_script(self) -> None:
        """Calls and errors."""
        await self.succeeds("script")
        self.flushLoggedErrors(ValueError)

    async def test_fork_later(self) -> None:
        """Forks."""
        await self.succeeds("fork_later")
        self.assertEqual(await self.heard.wait(2), ["from a child"] * 2)


def get(url: str) -> Deferred[str]:
    return Deferred.fromCoroutine(get_text(url))


async def get_text(url: str) -> str:
    response = await treq.get(url, persistent=False)
    return await response.text()
