"""Publishing for somebody: the confirms that are still to come hold back an ack."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.publish import Confirmation, unconfirmed_of, when_confirmed
from txservices.testing.waiting import Heard
from txservices.utils.waiting import Unconfirmed


class UnconfirmedTests(SynchronousTestCase):
    """What somebody has published holds back the ack."""

    def setUp(self) -> None:
        self.owner, self.called = Owner(), Heard()

    def test_none(self) -> None:
        """Whoever has published nothing does not wait, and nothing is counted; nor does nobody."""
        when_confirmed(self.owner, self.called)
        when_confirmed(None, self.called)
        self.assertEqual((len(self.called.things), self.owner.unconfirmed), (2, None))

    def test_some(self) -> None:
        """All that an owner has published is waited for, and nobody else's."""
        other = Owner()
        confirmations = [
            Confirmation(unconfirmed_of(each), "exchange", "key") for each in (self.owner, self.owner, other)
        ]
        when_confirmed(self.owner, self.called)
        when_confirmed(self.owner, self.called)
        waiting = unconfirmed_of(self.owner).wait()
        confirmations[0].done(None)
        self.assertEqual(self.called.things, [])
        self.assertNoResult(waiting)
        confirmations[1].done(None)
        self.assertEqual(len(self.called.things), 2)
        self.successResultOf(waiting)
        self.assertEqual((unconfirmed_of(self.owner).count, unconfirmed_of(other).count), (0, 1))

    def test_published_in_answer(self) -> None:
        """What is published where the last confirm arrives counts as well."""
        counting = unconfirmed_of(self.owner)
        first, second = Confirmation(counting, "exchange", "key"), []
        when_confirmed(self.owner, self.called)
        first.addCallback(lambda _: second.append(Confirmation(counting, "exchange", "key")))
        first.done(None)
        self.assertEqual(self.called.things, [])
        second[0].done(None)
        self.assertEqual(len(self.called.things), 1)


class Owner:
    """Somebody who publishes."""

    unconfirmed: Unconfirmed | None = None
