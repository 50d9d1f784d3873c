"""How a parking queue is read from its oldest message on."""

from __future__ import annotations

from typing import Any

from tests.retry.test_parked import ALL, PARKING, ParkedCase
from txservices.amqp.entities import Message
from txservices.retry import parked
from txservices.retry.failures import DELIVERY_COUNT
from txservices.retry.parked import DELIVERIES_MAX, Tally


class WalkTests(ParkedCase):
    """How many messages are asked for at once, and which are replaced by copies."""

    async def test_bytes_at_once(self) -> None:
        """No more messages are asked for at once than a bound of bytes allows, and one if each is longer than that."""
        got_of, asked = parked.got_of, []

        async def noted(channel: Any, queue: str, count: int) -> Any:
            asked.append(count)
            return await got_of(channel, queue, count)

        self.patch(parked, "got_of", noted)
        await self.park(["x" * 100] * 7)
        for most, counts in ((99, [1] * 7), (300, [1, 3, 3]), (400, [1, 4, 2])):
            self.patch(parked, "GETS_BYTES_MAX", most)
            asked.clear()
            self.assertEqual(len(await self.left()), 7)
            self.assertEqual(asked, counts, most)

    async def test_renewed(self) -> None:
        """A message that the broker has delivered often is replaced by a copy, without that count and its user."""
        await self.connections().publisher.declare(self.parking)
        for count, renewed in ((None, 0), ("99", 0), (DELIVERIES_MAX - 1, 0), (DELIVERIES_MAX, 1), (99, 1)):
            headers = {"plain": 5, DELIVERY_COUNT: count}
            properties = {"message_id": "a", "user_id": "somebody", "headers": headers}
            message = Message(b"x", properties, "", PARKING, False, 1, "", lambda *settled: None)
            await self.operations().renew(PARKING, message)
            self.assertEqual(message.settled, bool(renewed), count)
            copies: list[Message] = []
            await self.operations().look(PARKING, ALL, copies.append, Tally())
            found = [(copy.body, copy.properties["message_id"], copy.headers.get("plain")) for copy in copies]
            self.assertEqual(found, [(b"x", "a", 5)] * renewed, count)
            self.assertNotIn("user_id", [name for copy in copies for name in copy.properties])
            self.assertNotIn(count, [copy.headers.get(DELIVERY_COUNT, "no count") for copy in copies])
            await self.operations().discard(PARKING, ALL, Tally())
