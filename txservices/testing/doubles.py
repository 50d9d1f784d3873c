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


class ProxyMock(MagicMock):
    """A ``MagicMock`` of a proxy: ``options(...)`` of a method gives that method, as it does on a real one."""

    def _get_child_mock(self, /, **options: Any) -> Any:  # unittest.mock's hook for this
        is_method = self._mock_new_parent is not None  # of the proxy itself `options` would be a method's name
        if is_method and options.get("name") == "options":
            return MagicMock(return_value=self, **options)
        return super()._get_child_mock(**options)


class DeferredMock(ProxyMock):
    """One whose calls give Deferreds: of its return value, or failed with its ``side_effect``."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        try:
            result = super().__call__(*args, **kwargs)
        except Exception as error:
            return fail(error)
        return result if isinstance(result, Deferred) else succeed(result)

    def _get_child_mock(self, /, **options: Any) -> Any:
        if options.get("name") in AT_ONCE:
            return MagicMock(**options)
        return super()._get_child_mock(**options)


def double_of(provider: DependencyProvider, service_cls: type[Any]) -> MagicMock:
    """A double for what ``provider`` injects. In a service with ``blocking = True`` calls give values."""
    waits = isinstance(provider, GIVE_DEFERREDS) and not getattr(service_cls, "blocking", False)
    return DeferredMock() if waits else ProxyMock()
