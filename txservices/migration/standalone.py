"""``nameko.standalone.rpc``: our blocking proxies, with the context that nameko's have as ``_worker_ctx``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define
from typing_extensions import Unpack

from txservices import constants
from txservices.extensions import ContextData
from txservices.migration.settings import config as process_config
from txservices.proxies import ClusterProxy, RequestOptions, ServiceProxy
from txservices.standalone import blocking

__all__ = [
    "ClusterRpcClient",
    "ClusterRpcProxy",
    "ServiceRpcClient",
    "ServiceRpcProxy",
    "StandaloneProxyBase",
]


@define(eq=False)
class WorkerContext:
    """The context of a proxy's calls. What a program changes in ``data`` goes along with its next call."""

    data: dict[str, Any]
    context_data: ContextData

    @classmethod
    def of(cls, proxy: blocking.BlockingProxy[Any]) -> WorkerContext:
        """That of a proxy, whose calls have it from now on."""
        data = dict(proxy.caller.context_data)
        stack = {constants.CALL_ID_STACK_CONTEXT_KEY: data.pop(constants.CALL_ID_STACK_CONTEXT_KEY)}
        context = cls(data, ContextData(data, stack))
        proxy.caller.context_data = context.context_data
        return context


class ClusterRpcProxy(blocking.ClusterRpcProxy):
    """Calls to any service. ``config`` is the configuration of the process if it isn't given, as in nameko 3."""

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        super().__init__(process_config if config is None else config, context_data, timeout, **options)
        self._worker_ctx = WorkerContext.of(self)

    def proxy(self) -> ClusterProxy:
        proxy = super().proxy()
        vars(proxy)["_worker_ctx"] = self._worker_ctx
        return proxy


class ServiceRpcProxy(blocking.ServiceRpcProxy):
    """Calls to one service. ``config`` is as that of ``ClusterRpcProxy``."""

    def __init__(
        self,
        service_name: str,
        config: Mapping[str, Any] | None = None,
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        super().__init__(service_name, process_config if config is None else config, context_data, timeout, **options)
        self._worker_ctx = WorkerContext.of(self)

    def proxy(self) -> ServiceProxy:
        proxy = super().proxy()
        vars(proxy)["_worker_ctx"] = self._worker_ctx
        return proxy


StandaloneProxyBase = blocking.StandaloneProxyBase
ClusterRpcClient = ClusterRpcProxy  # nameko 3's names
ServiceRpcClient = ServiceRpcProxy
