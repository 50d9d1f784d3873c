"""One service in two instances, nameko's and ours; and either side going away and coming back while the other runs."""

from __future__ import annotations

import os
from collections import Counter

from twisted.internet.defer import gatherResults

from tests import processes
from tests.interop.fixtures import InteropCase, OwnProcessesCase
from tests.interop.fleet import SIDES
from tests.interop.nameko_env import NAMEKO_3
from txservices.exceptions import RpcTimeout


class Twins(InteropCase):
    """``twin`` runs on both sides: all its queues are declared by both, or neither would start."""

    async def setUp(self) -> None:
        super().setUp()
        self.heard = await self.witness()
        await self.start_ours("Twin", "Teller")
        self.ours = await self.cluster()

    async def test_calls_in_turn(self) -> None:
        """Calls go to the one and to the other, each to one of them."""
        answers = [await self.ours.twin.who(number) for number in range(20)]
        self.assertEqual([number for _, number in answers], list(range(20)))
        self.assertEqual(Counter(side for side, _ in answers), {"n": 10, "t": 10})

    async def test_events_are_pooled(self) -> None:
        """Each event is handled once, by one of the two."""
        for side in SIDES:
            for number in range(10):
                await self.ours[f"teller_{side}"].tell("shared", number)
        told = await self.heard.wait(20)
        self.assertEqual(sorted(number for _, _, number, _ in told), sorted([*range(10)] * 2))
        shares = Counter(who for who, *_ in told)
        self.assertEqual(set(shares), set(SIDES))

    async def test_broadcasts(self) -> None:
        """Each event is handled by both, on queues of their own."""
        for side in SIDES:
            await self.ours[f"teller_{side}"].tell("everyone", side)
        told = await self.heard.wait(4)
        self.assertEqual(
            sorted((who, data) for who, _, data, _ in told), [(own, side) for own in SIDES for side in SIDES]
        )

    async def test_requeued(self) -> None:
        """An event that one of them raises at, with ``requeue_on_error``, may go to the other."""
        for wanted in SIDES:
            self.heard.things.clear()
            await self.ours[f"teller_{wanted}"].tell("picky", wanted)
            self.assertEqual([told[0] for told in await self.heard.wait(1)], [wanted])


class TwinsWithNameko3(Twins):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3


OUR_PROCESS = """
from twisted.internet.defer import Deferred
from tests.interop.fleet import services

Twin = services("txservices", "t", Deferred)["Twin"]
"""


class Restarts(OwnProcessesCase):
    """Either side goes away and comes back."""

    async def our_twin(self) -> processes.Process:
        """A process of ours with ``twin``, running."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "app.py"), "w", encoding="utf-8") as file:
            file.write(OUR_PROCESS)
        config = processes.config_file(self, **self.config)
        process = processes.txservices(
            self, "run", "--config", config, "app:Twin", cwd=folder, PYTHONPATH=processes.ROOT
        )
        await process.line("^running: ")
        return process

    async def test_nameko_is_restarted(self) -> None:
        """Our calls and events wait for a nameko service that is away, and go on when it is back."""
        heard = await self.witness()
        await self.start_ours("Caller", "Teller")
        cluster = await self.cluster()
        away = await self.nameko("Answers", "Listener")
        self.assertEqual(await cluster.caller_t.call("answers_n", "two", [0]), {"result": [0, 2, 3]})
        self.assertEqual(await away.end(), 0, away)
        meanwhile = [cluster.caller_t.call("answers_n", "two", [number]) for number in range(5)]
        await cluster.teller_t.tell("told", "meanwhile")
        self.assertEqual(heard.things, [])
        back = await self.nameko("Answers", "Listener")
        self.assertEqual(await gatherResults(meanwhile), [{"result": [number, 2, 3]} for number in range(5)])
        told = await heard.wait(3)  # a broadcast waits for nobody
        self.assertEqual({what for _, what, *_ in told}, {"pool", "second", "one"})
        self.assertEqual(await back.end(), 0, back)

    async def test_ours_is_restarted(self) -> None:
        """nameko's calls and events wait for a service of ours that is away, and go on when it is back."""
        heard = await self.witness()
        cluster = await self.cluster()
        away = await self.start_ours("Answers", "Listener")
        process = await self.nameko("Caller", "Teller")
        self.assertEqual(await cluster.caller_n.call("answers_t", "two", [0]), {"result": [0, 2, 3]})
        await gatherResults([container.stop() for container in away])
        meanwhile = [cluster.caller_n.call("answers_t", "two", [number]) for number in range(5)]
        await cluster.teller_n.tell("told", "meanwhile")
        self.assertEqual(heard.things, [])
        await self.start_ours("Answers", "Listener")
        self.assertEqual(await gatherResults(meanwhile), [{"result": [number, 2, 3]} for number in range(5)])
        told = await heard.wait(3)
        self.assertEqual({what for _, what, *_ in told}, {"pool", "second", "one"})
        self.assertEqual(await process.end(), 0, process)

    async def test_expired_meanwhile(self) -> None:
        """A request that nobody waits for any more is not run by a nameko that comes back."""
        heard = await self.witness()
        cluster = await self.cluster()
        away = await self.nameko("Twin")
        self.assertEqual(await cluster.twin.who(1), ["n", 1])
        await away.end()
        await self.assertFailure(cluster.twin.until_killed.options(timeout=0.2)("n"), RpcTimeout)
        waits = cluster.twin.who(2)  # in the same queue, behind it
        await self.nameko("Twin")
        self.assertEqual(await waits, ["n", 2])
        self.assertEqual(heard.things, [])

    async def test_killed_in_the_middle_of_a_call(self) -> None:
        """Work that a twin had begun when it was killed is done by the other, whichever side each is of."""
        heard = await self.witness()
        cluster = await self.cluster()
        twins = {"n": await self.nameko("Twin"), "t": await self.our_twin()}
        for victim, survivor in (("n", "t"), ("t", "n")):
            heard.things.clear()
            answers = [cluster.twin.until_killed(victim) for _ in range(2)]  # one each
            await heard.wait(1)
            await twins[victim].end("KILL")
            self.assertEqual(await gatherResults(answers), [survivor] * 2)
            if victim == "n":
                twins["n"] = await self.nameko("Twin")
        self.assertEqual(await twins["n"].end(), 0, twins["n"])


class RestartsWithNameko3(Restarts):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3
