"""Which failures are settled by retries, and how much time of its caller a copy of a request has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices import deadlines
from txservices.amqp.entities import Message
from txservices.exceptions import CallerGone
from txservices.retry import Reject, Retry
from txservices.retry.failures import Failures, Source


def failures(retry: Retry | None, published: list[Any]) -> Failures:
    """Those of a method, whose copies are put into a list: their properties, and their delays."""
    container = SimpleNamespace(config={}, service_name="s", service_cls=object)
    entrypoint: Any = SimpleNamespace(container=container, method_name="m")
    on_demand = SimpleNamespace(publish_later=lambda *arguments: published.append(arguments[3:5]))
    connections: Any = SimpleNamespace(on_demand=on_demand)
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
