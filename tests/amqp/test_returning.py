"""Messages that go back: at once the first time, and then after pauses that grow."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp import returning as module
from txservices.amqp.entities import Message
from txservices.amqp.returning import FAILURES_MAX, PAUSE_FIRST, PAUSE_MAX, Returning


class ReturningTests(SynchronousTestCase):
    """In virtual time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.returning = Returning(self.clock)
        self.settled: list[tuple[float, bytes, bool]] = []

    def message(self, body: bytes = b"", **properties: Any) -> Message:
        return Message(body, properties, "", "queue", True, 1, "", self.settle)

    def settle(self, message: Message, ack: bool, requeue: bool) -> None:
        self.settled.append((self.clock.seconds(), message.body, requeue))

    def comes_back(self, times: int, **properties: Any) -> list[float]:
        """The pauses of a message that fails so many times."""
        pauses = []
        for _ in range(times):
            began, count = self.clock.seconds(), len(self.settled)
            self.returning.give_back(self.message(**properties))
            while len(self.settled) == count:
                self.clock.advance(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds())
            pauses.append(self.clock.seconds() - began)
        return pauses

    def test_pauses_grow(self) -> None:
        """The first time there is none; then they grow to the longest, and stay."""
        pauses = self.comes_back(1_100, message_id="one")
        self.assertEqual(pauses[0], 0)
        expected = [PAUSE_FIRST, 0.2, 0.4, 0.8, 1.6, 3.2, *[PAUSE_MAX] * 1_093]
        self.assertEqual([round(pause, 3) for pause in pauses[1:]], expected)
        self.assertTrue(all(requeue for _, _, requeue in self.settled))

    def test_log(self) -> None:
        """The log tells at doubling numbers."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.comes_back(70)
        counts = [line.split(" failed ")[1].split()[0] for line in lines if " failed " in line]
        self.assertEqual(counts, ["2", "4", "8", "16", "32", "64"])

    def test_each_message_by_itself(self) -> None:
        """One that fails often does not make another wait, whether they have ids or not; nor does one that was done."""
        self.comes_back(5, message_id="one")
        self.assertEqual(self.comes_back(1, message_id="two"), [0])
        self.comes_back(5, body=b"three")
        self.assertEqual(self.comes_back(1, body=b"four"), [0])
        self.returning.forget(self.message(message_id="one"))
        self.assertEqual(self.comes_back(1, message_id="one"), [0])

    def test_nothing_is_held_up(self) -> None:
        """A second message goes back while the first one's pause lasts."""
        self.comes_back(9, message_id="one")
        self.returning.give_back(self.message(b"one", message_id="one"))
        self.returning.give_back(self.message(b"two", message_id="two"))
        self.assertEqual(self.settled[-1][1], b"two")

    def test_cancel(self) -> None:
        """A stop gives back at once all that is held, and leaves no delayed call."""
        self.comes_back(9, message_id="one")
        self.returning.give_back(self.message(b"held", message_id="one"))
        self.returning.cancel()
        self.assertEqual(self.settled[-1][1:], (b"held", True))
        self.returning.give_back(self.message(b"later", message_id="one"))
        self.assertEqual((self.settled[-1][1], self.clock.getDelayedCalls()), (b"later", []))

    def test_bound(self) -> None:
        """No more than so many messages are counted."""
        self.patch(module, "FAILURES_MAX", 3)
        for number in range(10):
            self.comes_back(2, message_id=str(number))
        self.assertEqual(list(self.returning.failures), ["7", "8", "9"])
        self.assertGreater(FAILURES_MAX, 3)
