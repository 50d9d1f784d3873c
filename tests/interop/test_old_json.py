"""JSON of kombu 5.2 and earlier, which many a nameko still has: times, decimals and UUIDs are plain text in it.

What it writes we read as the text that it is. Of our envelopes it sees objects of two keys, as of those that a nameko
with a later kombu writes. A serializer of the user's own in place of ``json`` writes as it does.
"""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.interop.fixtures import InteropCase
from tests.interop.fleet import SPECIAL
from tests.interop.nameko_env import OLD_KOMBU
from txservices.serialization.jsonvalues import encode_json

# What kombu 5.2 writes for each of ``SPECIAL``, read again; what it can't write is left out.
OLD = {
    0: "2026-01-02T03:04:05.000006",
    1: "2026-01-02T03:04:05Z",
    2: "2026-01-02T00:00:00",
    3: "03:04:05",
    4: "1.10",
    5: "c579e7b8-8fb0-4bfd-a3dd-7a658123b2dc",
    8: [[1, 2], {"a": "3"}],
    9: {"1": "one", "two": None},
    10: 2**200,
    11: -1.5e300,
    12: float("inf"),
    13: "ünï \U0001f600 \ud800 \x00",
}
BYTES = (6, 7)


def in_plain_text(value: Any) -> str:
    """The value of a type that JSON has no word for, as kombu 5.2 has it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00"
    if isinstance(value, (time, Decimal, UUID)):
        return value.isoformat() if isinstance(value, time) else str(value)
    raise TypeError(f"{value!r} is no JSON")


def write_old(value: Any) -> str:
    return json.dumps(value, default=in_plain_text)


OLD_JSON = {
    "encoder": f"{__name__}.write_old",
    "decoder": "json.loads",
    "content_type": "application/json",
    "content_encoding": "utf-8",
}


class OldJson(InteropCase):
    """nameko 2.14.1 with kombu 5.2, and ours as it is."""

    version = OLD_KOMBU

    async def ask(self, ask: str, caller: str, service: str) -> list[Any]:
        """How each of ``SPECIAL`` looks to the callee; the error's name if it can't be sent."""
        cluster = await self.cluster()
        call = getattr(cluster[f"caller_{caller}"], ask)
        outcomes = [await call(f"answers_{service}", which) for which in range(len(SPECIAL))]
        return [outcome.get("result", outcome.get("error")) for outcome in outcomes]

    async def test_from_theirs(self) -> None:
        """Their text is ours too, in arguments and in results; bytes they can't send."""
        await self.start_ours("Answers", "Caller")
        arguments = await self.ask("send_special", "n", "t")
        results = await self.ask("take_special", "t", "n")
        for which, value in OLD.items():
            self.assertEqual([arguments[which], results[which]], [repr(value)] * 2, which)
        for which in BYTES:
            self.assertEqual([arguments[which], results[which]], ["EncodeError", "RemoteError"])

    async def test_to_theirs(self) -> None:
        """They see our envelopes as objects, and what has none as it is."""
        await self.start_ours("Answers", "Caller")
        seen = [repr(json.loads(encode_json(value))) for value in SPECIAL]
        self.assertEqual(await self.ask("send_special", "t", "n"), seen)
        self.assertEqual(await self.ask("take_special", "n", "t"), seen)
        self.assertEqual(seen[4], "{'__type__': 'decimal', '__value__': '1.10'}")

    async def test_there_and_back(self) -> None:
        """A value of ours that they give back is as it was."""
        await self.start_ours("Caller")
        cluster = await self.cluster()
        _, back = await cluster.caller_t.special("answers_n")
        expected = [repr(value) for value in SPECIAL]
        expected[8:10] = ["[[1, 2], {'a': Decimal('3')}]", "{'1': 'one', 'two': None}"]
        self.assertEqual(back, expected)

    async def test_events(self) -> None:
        """The same with events, to listeners of both sides."""
        heard = await self.witness()
        await self.start_ours("Teller", "Listener")
        cluster = await self.cluster()
        await cluster.teller_n.tell_special("special", *OLD)
        for who, _, data, _ in await heard.wait(2):
            self.assertEqual(data, [repr(value) for value in OLD.values()], who)
        heard.things.clear()
        await cluster.teller_t.tell_special("special")
        told = {who: data for who, _, data, _ in await heard.wait(2)}
        self.assertEqual(told["listener_n"], [repr(json.loads(encode_json(value))) for value in SPECIAL])
        self.assertEqual(told["listener_t"][:8], [repr(value) for value in SPECIAL[:8]])

    async def test_written_as_theirs(self) -> None:
        """With a serializer of the user's own our services write as theirs do."""
        await self.start_ours("Answers", "Caller", SERIALIZERS={"json": OLD_JSON})
        for ask in ("send_special", "take_special"):
            for caller, service in (("t", "n"), ("n", "t"), ("t", "t")):
                seen = await self.ask(ask, caller, service)
                for which, value in OLD.items():
                    self.assertEqual(seen[which], repr(value), (ask, caller, service))
