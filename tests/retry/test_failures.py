"""Which failures are settled by retries, and how much time of its caller a copy of a request has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txservices import deadlines
from txservices.amqp.entities import Message
from txservices.exceptions import CallerGone
from txservices.retry import Reject, Retry
from txservices.retry.failures import Failures, Source


def failures(retry: Retry | None, published: list[Any], publish: Any = None, **config: Any) -> Failures:
    """Those of a method, whose copies are put into a list: their properties, and their delays.

    ``publish`` takes them instead, if it is given.
    """
    container = SimpleNamespace(config=config, service_name="s", service_cls=object)
    entrypoint: Any = SimpleNamespace(container=container, method_name="m")
    publish_later = publish or (lambda *arguments: published.append(arguments[3:5]))
    connections: Any = SimpleNamespace(on_demand=SimpleNamespace(publish_later=publish_later, publish_then=publish))
    return Failures(entrypoint, connections, Message.ack, Message.reject, retry)


class FailuresTests(SynchronousTestCase):
    """``Failures``, without a broker."""

    def test_takes(self) -> None:
        """With a policy all failures but those expected; without one only what asks for it; and no one's who left."""
        table: list[tuple[BaseException, bool, bool]] = [
            (ValueError(), True, False),
            (LookupError(), False, False),
            (KeyError(), False, False),
            (Retry(after=1), True, True),
            (Reject("why"), True, True),
            (CallerGone("gone"), False, False),
        ]
        for error, with_policy, without in table:
            taken = [failures(policy, []).takes(error, (LookupError,)) for policy in (Retry(), None)]
            self.assertEqual(taken, [with_policy, without], error)

    def test_time_left(self) -> None:
        """A copy of a request says how much time its caller has when it comes; for one that waits for ever, nothing."""
        for patience, left in ((5.0, 3.0), (float("inf"), None), (None, None)):
            published: list[Any] = []
            message = Message(b"", {"headers": {}}, "x", "k", False, 1, "", lambda *settled: None)
            policy = Retry(delay=2, jitter=0)
            failures(policy, published).failed(message, None, ValueError(), Source("q", "x", "k"), patience)
            [(properties, delay)] = published
            headers = properties["headers"]
            self.assertEqual((delay, headers.get(deadlines.TIME_LEFT)), (2, left))
            self.assertEqual(deadlines.DEADLINE in headers, left is not None)

    def test_not_carried(self) -> None:
        """A message whose copy AMQP can't carry goes back to its queue, and the log tells so."""
        for policy in (Retry(delay=2), Retry(attempts=1)):
            message = Message(b"", {"headers": {}}, "x", "k", False, 1, "", lambda *settled: None)
            with capturedLogs() as events:
                failures(policy, [], refusing).failed(message, None, KeyError("why"), Source("q", "x", "k"))
            self.assertTrue(message.settled)
            lines = [line for line in map(formatEvent, events) if "goes back" in line]
            self.assertEqual([line.rpartition(": ")[2] for line in lines], ["it is too long"])

    def test_not_parked(self) -> None:
        """With ``on_parked`` drop or requeue, the log says that a message was dropped or given back, and why."""
        for on_parked, done in (("drop", "dropped"), ("requeue", "given back")):
            message = Message(b"", {"headers": {}}, "x", "k", False, 1, "", lambda *settled: None)
            with capturedLogs() as events:
                given_up = failures(Retry(attempts=1), [], refusing, on_parked=on_parked)
                given_up.failed(message, None, KeyError("why"), Source("q", "x", "k"))
            self.assertTrue(message.settled)
            lines = [line for line in map(formatEvent, events) if f"is {done} after attempt 1 (failed): " in line]
            self.assertEqual(len(lines), 1, events)


def refusing(*arguments: Any) -> None:
    raise ValueError("it is too long")
