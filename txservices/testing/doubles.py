"""What stands in the place of a dependency in a test: a ``MagicMock``, which waits where the dependency would.

service = worker_factory(ServiceX)
service.y.method.return_value = 3
await service.y.method(1)       # 3
"""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from twisted.internet.defer import Deferred, fail, succeed

from txservices.events import EventDispatcher
from txservices.extensions import DependencyProvider
from txservices.messaging import Publisher
from txservices.rpc import ClusterRpc

GIVE_DEFERREDS = (ClusterRpc, EventDispatcher, Publisher)
AT_ONCE = {"call_async"}  # of a proxy's methods: gives an RpcReply


class DeferredMock(MagicMock):
    """A ``MagicMock`` whose calls give Deferreds: of its return value, or failed with its ``side_effect``."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        try:
            result = super().__call__(*args, **kwargs)
        except Exception as error:
            return fail(error)
        return result if isinstance(result, Deferred) else succeed(result)

    def _get_child_mock(self, /, **options: Any) -> Any:  # unittest.mock's hook for this
        if options.get("name") in AT_ONCE:
            return MagicMock(**options)
        return super()._get_child_mock(**options)


def double_of(provider: DependencyProvider, service_cls: type[Any]) -> MagicMock:
    """A double for what ``provider`` injects. In a service with ``blocking = True`` calls give values."""
    waits = isinstance(provider, GIVE_DEFERREDS) and not getattr(service_cls, "blocking", False)
    return DeferredMock() if waits else MagicMock()
