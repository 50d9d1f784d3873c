"""``nameko.rpc``: ours, with proxies that are made as nameko's are, and with hooks for those who read requests.

a request  ->  RpcConsumer.handle_message, a subclass's own  ->  the entrypoint that it names  ->  ours
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from txservices import proxies
from txservices.amqp import entities
from txservices.amqp.longbodies import Decoded
from txservices.exceptions import DecodeError, MethodNotFound
from txservices.extensions import ExcInfo, WorkerContext
from txservices.migration.containers import is_foreign
from txservices.migration.messages import HandlesMessages, Message, plain
from txservices.proxies import RpcReply, default_options
from txservices.rpc import ReplyListener
from txservices.rpc import Rpc as OurRpc
from txservices.rpc import RpcConsumer as OurRpcConsumer
from txservices.rpc import RpcProxy as OurRpcProxy
from txservices.rpc import __all__ as __all__
from txservices.serialization import Serializers


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


class RpcConsumer(OurRpcConsumer):
    """The service's queue of requests. A subclass may find the method of a request by something else than its key."""

    def setup(self) -> None:
        super().setup()
        self.decode = Serializers(self.container.config).decode

    def receive(self, message: entities.Message, decoded: Decoded | None = None) -> None:
        if decoded is None and is_foreign(type(self).handle_message):
            try:
                properties, headers = message.properties, message.headers
                kind, encoding = properties.get("content_type"), properties.get("content_encoding")
                body = self.decode(kind, encoding, message.body, headers)
            except DecodeError:
                pass  # ours tells the caller
            else:
                self.handle_message(body, Message(message))
                return
        super().receive(message, decoded)

    def handle_message(self, body: Any, message: Any) -> None:
        """Have the request's method run."""
        try:
            self.get_provider_for_method(message.routing_key).handle_message(body, message)
        except MethodNotFound as error:
            self.handle_result(message, None, (type(error), error, None))

    def get_provider_for_method(self, routing_key: str) -> Any:
        """The entrypoint for the requests with that key. ``MethodNotFound`` if there is none."""
        try:
            return self.methods[routing_key]
        except KeyError:
            raise MethodNotFound(routing_key.removeprefix(self.prefix)) from None

    def handle_result(self, message: Any, result: Any, exc_info: ExcInfo) -> tuple[Any, ExcInfo]:
        """Answer a request for which no worker runs with an error."""
        self.refuse(plain(message), exc_info[1])
        return result, exc_info


class Rpc(HandlesMessages, OurRpc):
    """Answers calls of the method."""

    rpc_consumer = RpcConsumer()

    def handle_message(self, body: Any, message: Any) -> None:
        """Have the method run for that request, whatever its routing key is."""
        request = plain(message)
        request.routing_key = f"{self.container.service_name}.{self.method_name}"
        OurRpcConsumer.receive(self.rpc_consumer, request)


rpc = Rpc.decorator
