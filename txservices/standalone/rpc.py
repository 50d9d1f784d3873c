"""Calls to services from a program that is no service, over connections of its own.

    async with ClusterRpcProxy({"AMQP_URI": "amqp://guest:guest@localhost"}) as cluster:
        print(await cluster.service_x.remote_method("hellø"))

The ``Client`` in it is the one that services have.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp.connections import Connections
from txservices.amqp.publish import unconfirmed_of
from txservices.calls import Client
from txservices.exceptions import RpcConnectionError
from txservices.proxies import ClusterProxy, RequestOptions, ServiceProxy, default_options
from txservices.shared import Observed
from txservices.utils import default_reactor, sanitize_url
from txservices.utils.waiting import Unconfirmed

NAME = "standalone_rpc_proxy"  # on the wire, in the place of a service's name

P = TypeVar("P")

__all__ = ["ClusterProxy", "ClusterRpcClient", "ClusterRpcProxy", "ServiceRpcClient", "ServiceRpcProxy"]


@define(eq=False)
class Caller:
    """The context of a standalone proxy's calls, the same for all of them."""

    context_data: Mapping[str, Any]
    unconfirmed: Unconfirmed | None = None

    @classmethod
    def of(cls, context_data: Mapping[str, Any] | None) -> Caller:
        data = dict(context_data or {})
        parents = data.pop(constants.CALL_ID_STACK_CONTEXT_KEY, ())
        data[constants.CALL_ID_STACK_CONTEXT_KEY] = [*parents, f"{NAME}.call.{uuid.uuid4()}"]
        return cls(data)

    def time_left(self) -> None:
        """A program has no caller."""


class StandaloneProxy(Generic[P]):
    """Has the connections of a proxy, from ``start`` to ``stop`` or as long as an ``async with``. It starts once.

    Args:
        config: as a service has it. It must have an ``AMQP_URI``.
        context_data: goes along with each call, to the service and to all that it calls.
        timeout: seconds for each call and for the start; ``RPC_TIMEOUT`` of the configuration if it isn't given.
        clock: the reactor, unless told otherwise.
        options: ``proxies.RequestOptions``.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        clock: Any = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        self.config = config
        self.clock = clock = default_reactor(clock)
        self.caller = Caller.of(context_data)
        self.connections = Connections.from_config(config, clock)
        Observed(config).setServiceParent(self.connections)
        self.sending = default_options(config, options, timeout)
        self.client = Client(self.connections, NAME, config, clock)

    def proxy(self) -> P:
        """The proxy that calls are made through."""
        raise NotImplementedError  # the subclasses say: one service, or all

    def start(self) -> Deferred[P]:
        """Fires with the proxy when calls can be made.

        Fails with ``BrokerRefused``, and with ``RpcConnectionError`` where no broker answers for the length of a call.
        """
        return Deferred.fromCoroutine(self.open())

    async def open(self) -> P:
        if self.client.stopped:
            raise RuntimeError("this proxy has been stopped, and can't be used any more")
        self.connections.startService()
        ready = self.client.replies.listen(self.connections.consume)
        if self.sending.timeout is not None:
            ready.addTimeout(max(self.sending.timeout, 0.0), self.clock)
        try:
            await ready
        except DeferredTimeout:
            await self.stop()
            uri = sanitize_url(str(configuration.AMQP_URI.of(self.config)))
            raise RpcConnectionError(f"no broker at {uri} within {self.sending.timeout:g} s: is it running?") from None
        except Exception:
            await self.stop()
            raise
        return self.proxy()

    def stop(self) -> Deferred[None]:
        """Take no more calls. Fires when the connections are closed.

        The broker has all calls by then, so that the reply of a ``call_async`` may be ignored. Whoever still waits for
        a reply gets ``RpcConnectionError``.
        """
        self.client.abort()
        return Deferred.fromCoroutine(self.close())

    async def close(self) -> None:
        await unconfirmed_of(self.caller).wait()
        await self.client.replies.delete(self.connections.leaving)
        await self.connections.stopService()

    async def __aenter__(self) -> P:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class ClusterRpcProxy(StandaloneProxy[ClusterProxy]):
    """Calls to any service."""

    def proxy(self) -> ClusterProxy:
        return ClusterProxy(partial(self.client.call, self.caller), self.sending)


class ServiceRpcProxy(StandaloneProxy[ServiceProxy]):
    """Calls to one service: ``async with ServiceRpcProxy("service_x", config) as x: await x.method()``."""

    def __init__(
        self,
        service_name: str,
        config: Mapping[str, Any],
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        clock: Any = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        super().__init__(config, context_data, timeout, clock, **options)
        self.service_name = service_name

    def proxy(self) -> ServiceProxy:
        return ServiceProxy(partial(self.client.call, self.caller), self.service_name, self.sending)


ClusterRpcClient = ClusterRpcProxy  # nameko 3's names
ServiceRpcClient = ServiceRpcProxy
