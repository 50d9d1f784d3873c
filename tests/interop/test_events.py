"""Events and messages told by either side, and heard by both at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred

from tests.interop.fixtures import InteropCase, OwnProcessesCase
from tests.interop.fleet import SIDES, SPECIAL, services
from tests.interop.nameko_env import NAMEKO_3
from txservices.amqp.entities import Exchange
from txservices.exceptions import ConfigurationError
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard

CONTEXT = {"language": "en"}


class Events(InteropCase):
    """Listeners of both sides, tellers of both sides."""

    async def setUp(self) -> None:
        super().setUp()
        self.heard = await self.witness()
        await self.start_ours("Teller", "Listener", "Reader")
        self.ours = await self.cluster(context_data=CONTEXT)

    async def test_handler_types(self) -> None:
        """Each event reaches every pool and every broadcast queue, and of the singletons one."""
        data = {"a": [1, "ü"]}
        for side in SIDES:
            self.heard.things.clear()
            for _ in range(4):
                await self.ours[f"teller_{side}"].tell("told", data)
            told = await self.heard.wait(4 * (2 + 2 + 2 + 1))
            counts = Counter((who, what) for who, what, *_ in told)
            singletons = {who: counts.pop((who, "one"), 0) for who in ("listener_n", "listener_t")}
            self.assertEqual(sum(singletons.values()), 4)
            self.assertTrue(all(singletons.values()), singletons)  # in turn
            self.assertEqual(
                counts, {(f"listener_{own}", what): 4 for own in SIDES for what in ("pool", "second", "all")}
            )
            self.assertTrue(all(each == data for _, _, each, _ in told))

    async def test_patterns(self) -> None:
        """A handler of a pattern hears what fits it, from both sides, also with a queue that goes with it."""
        for side in SIDES:
            await self.ours[f"teller_{side}"].tell("very.wild", side)
        told = await self.heard.wait(4)
        self.assertEqual(
            sorted((who, data) for who, _, data, _ in told),
            [(f"listener_{own}", side) for own in SIDES for side in SIDES],
        )

    async def test_json_types(self) -> None:
        """A value that JSON has no word for arrives as it was, in both directions."""
        expected = [repr(value) for value in SPECIAL]
        expected[8:10] = ["[[1, 2], {'a': Decimal('3')}]", "{'1': 'one', 'two': None}"]
        for side in SIDES:
            self.heard.things.clear()
            await self.ours[f"teller_{side}"].tell_special("special")
            for who, _, data, _ in await self.heard.wait(2):
                self.assertEqual(data, expected, who)

    async def test_programs(self) -> None:
        """Dispatchers outside services, of both sides, are heard by both; no context comes with them."""
        async with event_dispatcher(self.config) as dispatch:
            for side, tell in (("n", self.ours.standalone_n.dispatch), ("t", dispatch)):
                self.heard.things.clear()
                await tell(f"teller_{side}", "a.wild", side)
                told = await self.heard.wait(2)
                self.assertEqual({who for who, *_ in told}, {"listener_n", "listener_t"})
                for who, _, data, stack in told:
                    self.assertEqual((data, len(stack)), (side, 1), who)


class Messages(InteropCase):
    """``Publisher`` of one side, ``consume`` of the other."""

    async def setUp(self) -> None:
        super().setUp()
        self.heard = await self.witness()
        await self.start_ours("Teller", "Reader")
        self.ours = await self.cluster(context_data=CONTEXT)

    async def published(self, value: Any, reads: str = "{}", **options: Any) -> None:
        """That value arrives as the same from both publishers at both consumers, with the headers that it should."""
        for teller in SIDES:
            for reader in SIDES:
                self.heard.things.clear()
                await self.ours[f"teller_{teller}"].publish(value, {"routing_key": f"{reader}.x.y", **options})
                ((who, what, (body, data), stack),) = await self.heard.wait(1)
                self.assertEqual((who, what, body), (f"reader_{reader}", "read", reads), teller)
                self.assertEqual(data, self.headers, teller)
                self.assertEqual(len(stack), 3)

    headers: dict[str, Any] = {"init": 1, "both": "init", **CONTEXT}

    async def test_values(self) -> None:
        """A value and its context arrive, through an exchange that both declare."""
        await self.published({"a": [1, None, "ü"]}, "{'a': [1, None, 'ü']}")

    async def test_headers(self) -> None:
        """A call's headers come before the publisher's own."""
        self.headers = {"init": 1, "both": "call", "call": 2, **CONTEXT}
        await self.published(1, "1", headers={"both": "call", "call": 2})

    async def test_forms(self) -> None:
        """Pickles and compressed bodies are read; text that is no JSON comes as text."""
        await self.published([1], "[1]", serializer="pickle")
        for compression in ("gzip", "bzip2"):
            await self.published("x" * 50, repr("x" * 50), compression=compression)
        await self.published("as it is, ü", "'as it is, ü'", content_type="application/text")

    async def test_default_exchange(self) -> None:
        """Without an exchange the routing key is the name of a queue, of the other side's consumer."""
        for teller in SIDES:
            for reader in SIDES:
                self.heard.things.clear()
                await self.ours[f"teller_{teller}"].publish_to_queue(teller, {"routing_key": f"readings-{reader}"})
                ((who, _, (body, _), _),) = await self.heard.wait(1)
                self.assertEqual((who, body), (f"reader_{reader}", repr(teller)))


class OldExchanges(OwnProcessesCase):
    """Exchanges of events that somebody else has declared, as nameko up to 2.12 did: with auto-delete."""

    async def setUp(self) -> None:
        super().setUp()
        kept = [Exchange(f"teller_{side}.events", type="topic", auto_delete=True) for side in SIDES]
        await self.connections().publisher.declare(*kept)

    async def test_left_alone(self) -> None:
        """With DECLARE_EVENT_EXCHANGES false neither side declares them, and events go from each to each."""
        self.config["DECLARE_EVENT_EXCHANGES"] = False
        booked = Heard()
        ours = services("txservices", "t", Deferred, booked)
        await self.start(ours["Teller"], ours["Books"])
        nameko = await self.nameko("Teller", "Books")
        cluster = await self.cluster()
        for number, side in enumerate(SIDES, 1):
            await cluster[f"teller_{side}"].tell("booked", number)
            await nameko.line(f"^{number}$")
            self.assertEqual((await booked.wait(number))[-1], number)

    async def test_declared(self) -> None:
        """Without it ours says that they are not what it would have, instead of trying for ever."""
        error = await self.assertFailure(Deferred.fromCoroutine(self.start_ours("Teller")), ConfigurationError)
        self.assertIn("auto_delete", str(error))


class OldExchangesWithNameko3(OldExchanges):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3


class EventsWithNameko3(Events):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3


class MessagesWithNameko3(Messages):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3
