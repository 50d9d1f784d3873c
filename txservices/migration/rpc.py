"""``nameko.rpc``: ours, with proxies that are made as nameko's are, for packages that make their own of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from txservices import proxies
from txservices.extensions import WorkerContext
from txservices.proxies import RpcReply, default_options
from txservices.rpc import ReplyListener
from txservices.rpc import RpcProxy as OurRpcProxy
from txservices.rpc import __all__ as __all__


def __getattr__(name: str) -> Any:
    return getattr(import_module("txservices.rpc"), name)


class MethodProxy(proxies.MethodProxy):
    """A method of another service, for one worker's calls. A subclass may override ``_call``, too."""

    options: Any

    def __init__(
        self,
        worker_ctx: WorkerContext,
        service_name: str,
        method_name: str,
        reply_listener: ReplyListener,
        **options: Any,
    ) -> None:
        begin, run = reply_listener.functions_for(worker_ctx)
        super().__init__(begin, service_name, method_name, default_options(worker_ctx.config, options), run)
        self.worker_ctx = worker_ctx
        self.service_name = service_name
        self.method_name = method_name
        self.reply_listener = reply_listener
        self.options = options

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs).result()

    def call_async(self, /, *args: Any, **kwargs: Any) -> RpcReply:
        """Call it and go on. The reply's ``result()`` can be asked for later."""
        return self._call(*args, **kwargs)

    def _call(self, /, *args: Any, **kwargs: Any) -> RpcReply:
        return super().call_async(*args, **kwargs)


class ServiceProxy(proxies.ServiceProxy):
    """Another service, for one worker's calls."""

    def __init__(
        self, worker_ctx: WorkerContext, service_name: str, reply_listener: ReplyListener, **options: Any
    ) -> None:
        self.worker_ctx = worker_ctx
        self.service_name = self._service = service_name
        self.reply_listener = reply_listener
        self.options = options

    def __getattr__(self, name: str) -> MethodProxy:
        if name.startswith("__"):  # what copy, mock and inspect look for
            raise AttributeError(name)
        return MethodProxy(self.worker_ctx, self.service_name, name, self.reply_listener, **self.options)


class RpcProxy(OurRpcProxy):
    """nameko's, whose subclasses find the listener for replies under nameko's name."""

    rpc_reply_listener = ReplyListener()
