"""Messages that fail in our instance of a service, and are tried again by it or by nameko's; deadlines and transient
calls over both."""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, gatherResults

from tests.interop.fixtures import InteropCase
from tests.interop.fleet import SIDES, Unknown, services
from tests.interop.nameko_env import NAMEKO_3
from txservices.testing.waiting import Heard

NUMBERS = 20
LEFT = 7  # seconds that the first caller waits


class Retries(InteropCase):
    """``flaky`` runs on both sides, on the same queues. Ours always fails, and tries again."""

    async def setUp(self) -> None:
        super().setUp()
        self.failed = Heard()
        ours = services("txservices", "t", Deferred, failed=self.failed)
        self.heard = await self.witness()
        await self.start(ours["Flaky"], ours["Teller"])
        self.ours = await self.cluster()

    def tearDown(self) -> None:
        super().tearDown()
        self.flushLoggedErrors(Unknown)

    async def test_calls(self) -> None:
        """Each call is answered by nameko's in the end: a request that failed here comes back by its routing key."""
        answers = await gatherResults([self.ours.flaky.call(number) for number in range(NUMBERS)])
        self.assertEqual(answers, [["n", number] for number in range(NUMBERS)])
        self.assertTrue(self.failed.things)

    async def test_events(self) -> None:
        """Each event is handled by nameko's in the end, once."""
        for side in SIDES:
            for number in range(NUMBERS):
                await self.ours[f"teller_{side}"].tell("flaky", number)
        told = await self.heard.wait(2 * NUMBERS)
        self.assertEqual(Counter(who for who, *_ in told), {"n": 2 * NUMBERS})
        self.assertEqual(sorted(number for _, _, number, _ in told), sorted([*range(NUMBERS)] * 2))
        self.assertTrue(self.failed.things)


class Deadlines(InteropCase):
    """A caller's deadline goes through nameko's services, which do not know of it."""

    async def test_passed_on(self) -> None:
        """In ours -> nameko's -> ours the last call ends with the first caller's deadline, not with one of its own."""
        await self.start_ours("Hops")
        cluster = await self.cluster(timeout=LEFT)
        for route in (("t", "n", "t"), ("n", "t"), ("t", "n", "n", "t")):
            for seen in await getattr(cluster, f"hops_{route[0]}").hop(*route[1:]):
                self.assertTrue(0 < seen["left"] <= LEFT, (route, seen))

    async def test_from_nameko(self) -> None:
        """A call that nameko began has no deadline, and ours gives one to its own calls."""
        await self.start_ours("Hops")
        cluster = await self.cluster()
        for answer in await cluster.standalone_n.call("hops_t", "hop", ["n"], {}):
            first, second = answer["result"]
            self.assertEqual((first["left"], second["left"]), (None, self.config["RPC_TIMEOUT"]))


class Transient(InteropCase):
    """A nameko caller's choice for its request holds for our reply."""

    async def test_replies(self) -> None:
        """A transient request has a transient reply, a persistent one a persistent reply."""
        await self.start_ours("Answers")
        cluster = await self.cluster()
        tapped = await self.tap(self.config.get("rpc_exchange", "nameko-rpc"))
        for service, mode in (("answers_t", 2), ("transient_t", 1)):
            tapped.things.clear()
            self.assertEqual(await cluster.caller_n.call(service, "two", [5]), {"result": [5, 2, 3]})
            messages = await tapped.wait(4)
            (request,) = [each for each in messages if each.routing_key == "answers_t.two"]
            modes = {
                each.properties["delivery_mode"]
                for each in messages
                if each.properties["correlation_id"] == request.properties["correlation_id"]
            }
            self.assertEqual(modes, {mode}, service)


class RetriesWithNameko3(Retries):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3


class DeadlinesWithNameko3(Deadlines):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3


class TransientWithNameko3(Transient):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3
