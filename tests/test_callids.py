"""The ids by which one call is found in all logs."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.recording import Service
from txservices.callids import ORIGIN_MAX, ids_of, on_behalf_of, origin_of, this_worker
from txservices.containers import ServiceContainer, WorkerContext


class CallIds(SynchronousTestCase):
    """Of a worker."""

    def worker(self, stack: Any = None) -> WorkerContext:
        container = ServiceContainer(Service, {})
        return WorkerContext(container, None, container.entrypoints[0], data={"call_id_stack": stack or []})

    def test_origins(self) -> None:
        """The origin is the first of the calls that led to a worker; a stranger's is made fit for a line of the log."""
        table = [
            (["web.buy.1"], "web.buy.1"),
            (["web.buy.1", "shop.sell.2"], "web.buy.1"),
            (["web.buy.1\n10:20:30 error forged: \x1b[2J\ud800"], "web.buy.1 10:20:30 error forged: \\x1b[2J\\ud800"),
            (["x" * 1_000_000], "x" * ORIGIN_MAX),
            (["amqp://u:s3cret@h/"], "amqp://u:********@h/"),
            ([{"a": 1}], "?"),
            ([7], "?"),
        ]
        for stack, origin in table:
            worker = self.worker(stack)
            self.assertEqual((origin_of(worker), ids_of(worker)), (origin, f"{worker.call_id} from {origin}"))

    def test_first(self) -> None:
        """The first call is its own origin, and has one id."""
        worker = self.worker()
        self.assertEqual((origin_of(worker), ids_of(worker)), (worker.call_id, worker.call_id))

    def test_on_behalf(self) -> None:
        """What is called on behalf of a worker is in its name, and only that; so it is for no worker at all."""
        worker = self.worker()
        self.assertIs(on_behalf_of(worker, this_worker.get), worker)
        self.assertIsNone(on_behalf_of(worker, on_behalf_of, None, this_worker.get))
        self.assertIsNone(this_worker.get())
        self.assertEqual(on_behalf_of(None, dict, call=1, worker=2), {"call": 1, "worker": 2})
