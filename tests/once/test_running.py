"""``Once`` by itself: which messages run, and what becomes of the others."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.entities import Message
from txservices.exceptions import ConnectionLost
from txservices.once.running import REMEMBERED_AGE, REMEMBERED_MAX, Once


class OnceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.once = Once(self.clock, Message.ack, True)
        self.settled: list[str] = []

    def message(self, name: str, message_id: Any = "one") -> Message:
        """A message that notes by its name how it is settled."""

        def settle(message: Message, ack: bool, requeue: bool) -> None:
            self.settled.append(f"{name} {'acked' if ack else 'back' if requeue else 'rejected'}")

        properties = {} if message_id is None else {"message_id": message_id}
        return Message(b"", properties, "", "", False, 1, "", settle)

    def handle(self, message: Message) -> None:
        self.once.succeeded(message, message.ack)

    def test_handled(self) -> None:
        """One that was handled is acked when it comes again, and another runs."""
        first = self.message("first")
        self.assertTrue(self.once.begins(first))
        self.handle(first)
        self.assertFalse(self.once.begins(self.message("again")))
        self.assertTrue(self.once.begins(self.message("other", "two")))
        self.assertEqual(self.settled, ["first acked", "again acked"])

    def test_while_it_runs(self) -> None:
        """Duplicates wait while it runs: they are acked after it if it was handled, and go back if it was not."""
        for name, end, expected in (
            ("handled", lambda first: self.once.succeeded(first, first.ack), "acked"),
            ("failed", self.once.ended, "back"),
            ("lost", lambda first: self.once.lost(first, lambda error: None, ConnectionLost("cut")), "back"),
        ):
            self.settled.clear()
            first = self.message("first", name)
            self.assertTrue(self.once.begins(first))
            for number in range(2):
                self.assertFalse(self.once.begins(self.message(f"copy {number}", name)))
            self.assertEqual(self.settled, [])
            end(first)
            self.assertEqual(self.settled[-2:], [f"copy 0 {expected}", f"copy 1 {expected}"])
            self.assertEqual(self.once.begins(self.message("later", name)), expected == "back")

    def test_without_id(self) -> None:
        """A message without an id always runs, and nothing is kept of it."""
        for message_id in (None, "", 5):
            for _ in range(2):
                message = self.message("x", message_id)
                self.assertTrue(self.once.begins(message))
                self.handle(message)
            self.assertEqual((self.once.running, self.once.handled), ({}, {}))

    def test_bounded(self) -> None:
        """So many are known, for so long; the oldest are forgotten."""
        for number in range(REMEMBERED_MAX + 1):
            message = self.message("x", str(number))
            self.once.begins(message)
            self.handle(message)
        self.assertEqual(len(self.once.handled), REMEMBERED_MAX)
        self.assertTrue(self.once.begins(self.message("oldest", "0")))
        self.assertFalse(self.once.begins(self.message("next", "1")))
        self.clock.advance(REMEMBERED_AGE + 1)
        self.assertTrue(self.once.begins(self.message("next", "1")))
        self.assertEqual(len(self.once.handled), 0)

    def test_a_store_remembers(self) -> None:
        """If a store remembers, nothing is kept here; duplicates of what runs go back, to be asked for there."""
        self.once = Once(self.clock, Message.ack, False)
        first = self.message("first")
        self.once.begins(first)
        self.once.begins(self.message("copy"))
        self.handle(first)
        self.assertEqual(self.settled, ["first acked", "copy back"])
        self.assertEqual((self.once.running, self.once.handled), ({}, {}))
