"""Messages that the broker nacks are published again on a new channel, until they are confirmed or their time is up."""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher

from tests.amqp.test_publisher import NOT_FOUND, PublisherCase
from txservices.amqp.publisher import NACKED_RETRY, NACKED_RETRY_GROWTH, NACKED_RETRY_MAX, RETIRING_MAX
from txservices.exceptions import (
    ChannelClosedByBroker,
    PublishNacked,
    PublishTimeout,
)


class NackedTests(PublisherCase):
    """Nacked messages are published again on channels that take over."""

    def test_published_again_until_it_is_confirmed(self) -> None:
        """A nacked message goes out again on a new channel, with the same id; others are not held up by it."""
        (outcome,) = self.publish(b"1")
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.nack(self.channel)
        (other,) = self.publish(b"2")
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(other)
        self.peer.clock.advance(NACKED_RETRY)
        second = self.opened()
        self.assertNotEqual(second, self.channel)
        self.assertEqual(self.published_and_closed(self.channel), [b"1"])
        self.assertNoResult(outcome)
        self.nack(second)
        third = self.next_channel()
        self.assertEqual(self.published_and_closed(second), [b"1"])
        self.peer.method(third, "basic.ack", delivery_tag=1)
        self.successResultOf(outcome)
        self.assertEqual(self.peer.sent(), [])
        self.nothing_is_kept()
        self.assertEqual(len([each for each in logged if "Published again" in str(each.get("log_format"))]), 1)

    def test_the_old_channel_stays_for_its_confirms(self) -> None:
        """Everything goes out on the new channel; the one that nacked is closed when it is answered for."""
        nacked, silent = self.publish(b"1", b"2", timeout=None)
        self.nack(self.channel, 1)
        second = self.next_channel()
        self.assertEqual(self.published(), [b"1"])
        (last,) = self.publish(b"3")
        self.assertEqual(self.peer.found[-1][0], second)
        self.peer.method(second, "basic.ack", delivery_tag=2, multiple=True)
        self.successResultOf(nacked)
        self.successResultOf(last)
        self.peer.method(self.channel, "basic.ack", delivery_tag=2)
        self.successResultOf(silent)
        self.retired(self.channel)
        self.nothing_is_kept()

    def test_nacked_by_a_retiring_channel(self) -> None:
        """A message that the old channel nacks late is published again as well."""
        self.publish(b"1", b"2", timeout=None)
        self.nack(self.channel, 1)
        self.next_channel()
        self.assertEqual(self.published(), [b"1"])
        self.nack(self.channel, 2)
        self.retired(self.channel)
        third = self.next_channel()
        self.assertEqual(self.published(), [b"2"])
        self.assertEqual(self.peer.found[-1][0], third)
        for outcome in self.publisher.unconfirmed.values():
            outcome.done = lambda error: None

    def test_the_wait_grows(self) -> None:
        """Each new channel is waited for longer, up to a limit; once all is confirmed the wait is short again."""
        (outcome,) = self.publish(b"1", timeout=None)
        channel, wait = self.channel, NACKED_RETRY
        for _ in range(8):
            self.nack(channel)
            self.peer.clock.advance(wait - 0.001)
            self.assertEqual(self.peer.sent(), [])
            self.peer.clock.advance(0.002)
            old, channel = channel, self.opened()
            self.assertEqual(self.published_and_closed(old), [b"1"])
            wait = min(wait * NACKED_RETRY_GROWTH, NACKED_RETRY_MAX)
        self.assertEqual(wait, NACKED_RETRY_MAX)
        self.peer.method(channel, "basic.ack", delivery_tag=1)
        self.successResultOf(outcome)
        (another,) = self.publish(b"2", timeout=None)
        self.nack(channel, 2)
        self.peer.clock.advance(NACKED_RETRY)
        self.peer.method(self.opened(), "basic.ack", delivery_tag=1)
        self.successResultOf(another)

    def test_fails_as_nacked_at_its_deadline(self) -> None:
        """Nacked for as long as it may take: PublishNacked; one that was never answered for is a PublishTimeout."""
        nacked, silent = self.publish(b"1", b"2", timeout=1)
        self.nack(self.channel, 1)
        self.peer.clock.pump([0.1] * 12)
        self.failureResultOf(nacked, PublishNacked)
        self.failureResultOf(silent, PublishTimeout)
        self.nothing_is_kept()

    def test_many_at_once_in_their_order(self) -> None:
        """All that were nacked meanwhile go together, in the order of publishing; some are nacked once more."""
        outcomes = self.publish(b"1", b"2", b"3", b"4", b"5")
        self.peer.method(self.channel, "basic.ack", delivery_tag=3)
        self.nack(self.channel, 5)
        self.nack(self.channel)
        second = self.next_channel()
        self.assertEqual(self.published_and_closed(self.channel), [b"1", b"2", b"4", b"5"])
        self.peer.method(second, "basic.ack", delivery_tag=2, multiple=True)
        self.nack(second, 3)
        self.peer.method(second, "basic.ack", delivery_tag=4)
        self.assertEqual(self.peer.sent(), [])
        third = self.next_channel()
        self.assertEqual(self.published_and_closed(second), [b"4"])
        self.peer.method(third, "basic.ack", delivery_tag=1)
        for outcome in outcomes:
            self.successResultOf(outcome)
        self.nothing_is_kept()

    def test_few_channels_retire(self) -> None:
        """Of too many that are never answered for, the oldest is closed and its messages go out on the new one."""
        outcomes = []
        channel = self.channel
        for number in range(RETIRING_MAX + 1):
            silent, nacked = b"silent %d" % number, b"nacked"
            outcomes += self.publish(silent, *([nacked] if not number else []), timeout=None)
            self.peer.method(channel, "basic.nack", delivery_tag=2 if not number else 1, multiple=False)
            channel = self.next_channel()
            sent = self.peer.sent()
            if number < RETIRING_MAX:
                self.assertEqual([name for _, name, _ in sent], ["basic.publish"])
        self.assertEqual(sent[0][:2], (self.channel, "channel.close"))
        self.assertEqual([content.body for _, content in self.peer.found[1:]], [b"silent 0", b"nacked"])
        self.assertEqual(len(self.publisher.retiring), RETIRING_MAX)
        for outcome in outcomes:
            outcome.addErrback(lambda failure: None)

    def test_connection_lost(self) -> None:
        """Messages that wait or are under way when the connection goes are published again on the next one, once."""
        for outcome in self.publish(b"1", b"2", b"3", timeout=None):
            outcome.addErrback(lambda failure: None)
        self.nack(self.channel, 1)
        second = self.next_channel()
        self.assertEqual(self.published(), [b"1"])
        self.nack(self.channel, 3)
        self.assertEqual(self.peer.sent(), [])
        self.assertNotEqual(second, self.channel)
        lost = self.publisher.channel
        self.lose_connection()
        self.assertEqual(lost.unconfirmed, {})
        self.reconnected()
        self.assertEqual(self.published(), [b"1", b"2", b"3"])
        self.peer.clock.advance(NACKED_RETRY_MAX)
        self.assertEqual(self.peer.sent(), [])
        self.assertEqual(self.publisher.retiring, {})

    def test_refused_again(self) -> None:
        """A message whose channel the broker closes fails alone; with others around it they are told apart."""
        bad, good = self.publish(b"bad", b"good")
        self.nack(self.channel)
        second = self.next_channel()
        self.assertEqual(self.published_and_closed(self.channel), [b"bad", b"good"])
        self.peer.method(second, "channel.close", **NOT_FOUND)
        third = self.opened()
        self.assertEqual(self.published(), [b"bad"])
        self.peer.method(third, "channel.close", **NOT_FOUND)
        self.failureResultOf(bad, ChannelClosedByBroker)
        self.opened()
        self.assertEqual(self.published(), [b"good"])
        self.assertNoResult(good)
        good.addErrback(lambda failure: None)

    def test_refused_on_a_retiring_channel(self) -> None:
        """Messages that were under way there are published again one at a time on the channel that took over."""
        nacked, bad, good = self.publish(b"nacked", b"bad", b"good")
        self.nack(self.channel, 1)
        second = self.next_channel()
        self.assertEqual(self.published(), [b"nacked"])
        self.peer.method(self.channel, "channel.close", **NOT_FOUND)
        self.assertEqual([name for _, name, _ in self.peer.sent()], ["channel.close-ok"])
        self.peer.method(second, "basic.ack", delivery_tag=1)
        self.successResultOf(nacked)
        self.assertEqual(self.published(), [b"bad"])
        self.peer.method(second, "channel.close", **NOT_FOUND)
        self.failureResultOf(bad, ChannelClosedByBroker)
        third = self.opened()
        self.assertEqual(self.published(), [b"good"])
        self.peer.method(third, "basic.ack", delivery_tag=1)
        self.successResultOf(good)
        self.nothing_is_kept()
