"""``WorkerContext``: what travels with a call."""

from __future__ import annotations

from typing import Any
from unittest import mock

from tests.recording import Case, Service
from txservices.containers import ServiceContainer, WorkerContext


class Context(Case):
    """``WorkerContext``: what travels with a call."""

    def context(self, data: dict[str, Any] | None, **config: Any) -> WorkerContext:
        container = ServiceContainer(Service, config)
        return WorkerContext(container, None, container.entrypoints[0], data=data)

    def test_call_id(self) -> None:
        """It is made when it is asked for, once."""
        worker_ctx = self.context(None)
        self.assertRegex(worker_ctx.call_id, r"^service\.run\.[0-9a-f-]{36}$")
        self.assertEqual(worker_ctx.call_id, worker_ctx.call_id)
        with mock.patch("txservices.extensions.new_call_id", return_value="1"):
            self.assertEqual(self.context(None).call_id, "service.run.1")

    def test_no_parent(self) -> None:
        """A call that nobody made is the origin itself."""
        worker_ctx = self.context({"language": "en"})
        self.assertIsNone(worker_ctx.origin_call_id)
        self.assertIsNone(worker_ctx.immediate_parent_call_id)
        self.assertEqual(worker_ctx.call_id_stack, [worker_ctx.call_id])
        self.assertEqual(worker_ctx.context_data, {"language": "en", "call_id_stack": [worker_ctx.call_id]})

    def test_parents(self) -> None:
        """The stack grows by this call, and the data goes on as it is now."""
        worker_ctx = self.context({"call_id_stack": ["a", "b"], "k": 1})
        self.assertEqual((worker_ctx.origin_call_id, worker_ctx.immediate_parent_call_id), ("a", "b"))
        self.assertEqual(worker_ctx.data, {"k": 1})
        worker_ctx.data["new"] = 2
        self.assertEqual(worker_ctx.context_data, {"k": 1, "new": 2, "call_id_stack": ["a", "b", worker_ctx.call_id]})

    def test_set(self) -> None:
        """A value that is set in the context travels on, and is in the worker's data."""
        worker_ctx = self.context({"k": 1})
        worker_ctx.context_data["auth"] = "token"
        self.assertEqual(worker_ctx.data, {"k": 1, "auth": "token"})
        self.assertEqual(worker_ctx.context_data["auth"], "token")
        self.assertEqual(list(worker_ctx.context_data), ["k", "auth", "call_id_stack"])

    def test_tracked(self) -> None:
        """Only so many parents are kept as are configured."""
        stack = [str(n) for n in range(20)]
        for tracked, kept in ((10, stack[-10:]), (1, ["19"]), (0, [])):
            worker_ctx = self.context({"call_id_stack": list(stack)}, parent_calls_tracked=tracked)
            self.assertEqual(worker_ctx.call_id_stack, [*kept, worker_ctx.call_id])
        worker_ctx = self.context({"call_id_stack": list(stack)})
        self.assertEqual(len(worker_ctx.call_id_stack), 11)

    def test_foreign_stack(self) -> None:
        """A stack that is no list is ignored: it must not stop the message."""
        for stack in ("abc", 1, None, {"a": 1}):
            worker_ctx = self.context({"call_id_stack": stack})
            self.assertEqual(worker_ctx.call_id_stack, [worker_ctx.call_id])

    def test_attributes(self) -> None:
        """It knows its service, and says what it is."""
        worker_ctx = self.context(None, key="value")
        self.assertEqual((worker_ctx.service_name, worker_ctx.config), ("service", {"key": "value"}))
        self.assertRegex(repr(worker_ctx), r"^<WorkerContext \[service\.run\] at 0x[0-9a-f]+>$")
        self.assertFalse(hasattr(worker_ctx, "__dict__"))
