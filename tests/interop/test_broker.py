"""RabbitMQ goes and comes back under a fleet of nameko's services and ours, while calls and events go on.

What is ours loses nothing, with no help. nameko's process ends when it can't reply or acknowledge, and has to be
started again, as a supervisor does here; what it was at goes on then, since that was not acknowledged. And its clients
give up after three attempts: what somebody had them call or tell meanwhile may fail, which is told apart.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from tests import processes, rabbitmq
from tests.faults.scene import until
from tests.interop.fixtures import CONFIG, InteropCase, argv
from tests.interop.fleet import services
from tests.interop.nameko_env import NAMEKO_2, NAMEKO_3
from tests.services import ServicesCase

NAMES = ("Answers", "Caller", "Teller", "Books")
DEADLINE = 45  # seconds that a call may take, and that all may take to be back
PACE = 0.05  # seconds from one call's end to the next: the machine is for the broker, which has to start
AFTER = 5  # of each kind that have to go well when the broker is back
# What nameko's callers and tellers say that have given up: kombu's, amqp's and Python's words for no connection.
GIVEN_UP = re.compile(r"OperationalError|Connection\w*(Error|Forced|Refused)|BrokenPipe|OSError|Socket closed")


class Restarts(InteropCase):
    """A node that may be harmed. On it both versions of nameko, as instances of the same services, and ours."""

    timeout = 180

    async def setUp(self) -> None:
        ServicesCase.setUp(self)
        self.node = rabbitmq.mortal()
        self.config.update({**CONFIG, "AMQP_URI": self.node.uri(self.node.new_vhost()), "RPC_TIMEOUT": DEADLINE})
        self.over = False
        self.namekos: list[processes.Process] = []
        self.kept = [Deferred.fromCoroutine(self.keep(version)) for version in (NAMEKO_2, NAMEKO_3)]
        self.booked: list[int] = []
        ours = services("txservices", "t", Deferred, self.booked.append)
        await gatherResults([process.line("^ready") for process in self.namekos])
        await self.start(*(ours[name] for name in NAMES))
        rpc = await self.cluster()
        self.acts: dict[str, Callable[[int], Any]] = {
            "ours asked": rpc.answers_t.echo,
            "nameko's asked": rpc.answers_n.echo,
            "ours calls": lambda number: rpc.caller_t.call("answers_n", "echo", [number]),
            "nameko's calls": lambda number: rpc.caller_n.call("answers_t", "echo", [number]),
            "ours tells": lambda number: rpc.teller_t.tell("booked", number),
            "nameko's tells": lambda number: rpc.teller_n.tell("booked", number),
        }
        self.seen: dict[str, list[tuple[int, Any]]] = {kind: [] for kind in self.acts}
        self.numbers = itertools.count()

    def tearDown(self) -> None:
        self.over = True

    async def keep(self, version: str) -> None:
        """Run nameko, again when it ends."""
        while not self.over:
            process = processes.start(self, argv(version, self.config, NAMES), PYTHONPATH=processes.ROOT)
            self.namekos.append(process)
            await process.exit(self.timeout)

    async def go_on(self, kind: str) -> None:
        """One after the other, each with a number, until it is over."""
        while not self.over:
            number = next(self.numbers)
            try:
                result = await self.acts[kind](number)
            except Exception as error:
                result = error
            self.seen[kind].append((number, result))
            await deferLater(reactor, PACE)

    def is_right(self, kind: str, number: int, result: Any) -> bool:
        echoed = [[number], {}]
        return bool(result == (None if "tells" in kind else echoed if "asked" in kind else {"result": echoed}))

    def right(self, kind: str, since: int = 0) -> set[int]:
        """The numbers that were answered as they should be."""
        return {number for number, result in self.seen[kind] if number >= since and self.is_right(kind, number, result)}

    def booked_by_nameko(self) -> set[int]:
        return {int(number) for each in self.namekos for number in re.findall(r"^(\d+)$", each.stdout, re.MULTILINE)}

    async def goes_and_comes(self, go: Callable[[], Any], come: Callable[[], Any]) -> None:
        """The broker goes away and comes back in the middle of it all."""
        going = [Deferred.fromCoroutine(self.go_on(kind)) for kind in self.acts]
        await until(lambda: all(len(self.right(kind)) >= AFTER for kind in self.acts), DEADLINE)
        await go()
        await come()
        since = next(self.numbers)
        for kind in self.acts:
            await until(lambda kind=kind: len(self.right(kind, since)) >= AFTER, DEADLINE)
        self.over = True
        await gatherResults(going)
        for kind, seen in self.seen.items():
            wrong = [(number, result) for number, result in seen if number not in self.right(kind)]
            if kind in ("nameko's calls", "nameko's tells"):
                wrong = [each for each in wrong if not GIVEN_UP.search(repr(each))]
            self.assertEqual(wrong, [], kind)
        told = self.right("ours tells") | self.right("nameko's tells")
        await until(lambda: told <= set(self.booked), DEADLINE)
        await until(lambda: told <= self.booked_by_nameko(), DEADLINE)
        await gatherResults([process.end("KILL") for process in self.namekos if process.status is None])
        await gatherResults(self.kept)

    async def test_row_36_broker_stopped(self) -> None:
        """It is stopped in order, and started: all come back, and nothing that was acknowledged is lost."""
        await self.goes_and_comes(self.node.stop_app, self.node.start_app)

    async def test_row_36_broker_killed(self) -> None:
        """The same after kill -9, and a start on what it has on its disk."""

        async def kill() -> None:
            self.node.kill()

        await self.goes_and_comes(kill, self.node.restart)
