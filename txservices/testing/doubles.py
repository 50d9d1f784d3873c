"""Doubles of dependencies: a ``MagicMock``, which gives Deferreds where the dependency would give them.

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
from txservices.httpclient import HttpClient
from txservices.messaging import Publisher
from txservices.rpc import ProxyProvider

__all__ = ["DeferredMock", "ProxyMock", "double_of"]

GIVE_DEFERREDS = (ProxyProvider, EventDispatcher, Publisher, HttpClient)
AT_ONCE = {"call_async"}  # attributes of a proxy's method that give no Deferred, but an RpcReply


class ProxyMock(MagicMock):
    """A ``MagicMock`` of a proxy: ``method.options(...)`` gives the method itself."""

    def _get_child_mock(self, /, **options: Any) -> Any:  # unittest.mock calls this to make an attribute
        is_method = self._mock_new_parent is not None  # on the proxy itself, `options` is the name of a method
        if is_method and options.get("name") == "options":
            return MagicMock(return_value=self, **options)
        return super()._get_child_mock(**options)


class DeferredMock(ProxyMock):
    """A ``ProxyMock`` that gives Deferreds: they fire with its ``return_value``, or fail with its ``side_effect``."""

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
    """A double for what ``provider`` injects. In a service with ``blocking = True`` it gives values, not Deferreds."""
    waits = isinstance(provider, GIVE_DEFERREDS) and not getattr(service_cls, "blocking", False)
    return DeferredMock() if waits else ProxyMock()
