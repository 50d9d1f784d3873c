"""Calls and events for programs without a reactor: scripts, Flask and Django views, a plain REPL.

    with ClusterRpcProxy({"AMQP_URI": "amqp://guest:guest@localhost"}) as rpc:
        print(rpc.service_x.remote_method("hellø"))
        reply = rpc.service_x.another_method.call_async(1)
        print(reply.result())

    dispatch = event_dispatcher(config)
    dispatch("service_a", "event_type", "payload")

The names are those of ``standalone.rpc`` and ``standalone.events``; here calls wait, give values and raise errors as
themselves. Any number of threads may use all of it. One pair of connections, with one reply queue, serves all threads
of a process and all proxies of one configuration, from the first ``start`` to some time after the last ``stop``. So a
view may say ``with ClusterRpcProxy(config)`` at each request. A forked worker has connections of its own, and may go on
with a proxy that its parent had started.

    proxy  ->  in_reactor (reactor_thread)  ->  Share  ->  calls.Client, as services have it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.failure import Failure
from typing_extensions import Unpack

from txservices import configuration, constants
from txservices.amqp.connections import Connections
from txservices.amqp.options import PublishOptions, Sending
from txservices.amqp.publish import send, unconfirmed_of
from txservices.calls import Client
from txservices.events import get_event_exchange
from txservices.exceptions import RpcConnectionError
from txservices.proxies import ClusterProxy, RequestOptions, ServiceProxy, default_options
from txservices.serialization import Serializers
from txservices.shared import Observed
from txservices.standalone import rpc as standalone
from txservices.standalone.reactor_thread import current, in_reactor
from txservices.utils import default_reactor, sanitize_url
from txservices.utils.waiting import Unconfirmed, Waiters

__all__ = [
    "ClusterRpcClient",
    "ClusterRpcProxy",
    "Dispatcher",
    "ServiceRpcClient",
    "ServiceRpcProxy",
    "StandaloneProxyBase",
    "event_dispatcher",
    "get_event_exchange",
]

LINGER = 10.0  # seconds that unused connections are kept, so that not every view has to make them anew

P = TypeVar("P")


# In the reactor's thread ----------------------------------------------------------------------------------------------


class Share(MultiService):
    """The connections of one configuration, for all who use them. Only the reactor's thread may touch it.

    Attributes:
        home: the process that it is in. A forked one must not use it.
        users: how many rely on it. When the last one has left, it closes after ``LINGER``.
        listening: whether replies can come.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.home = current()
        self.config = config
        self.clock = default_reactor()
        self.connections = Connections.from_config(config, self.clock)
        self.connections.setServiceParent(self)
        Observed(config).setServiceParent(self)
        self.client: Client | None = None
        self.listening = False
        self.waiting: Waiters[None] = Waiters()
        self.users = 0
        self.closing: Any = None

    @property
    def usable(self) -> bool:
        return self.home is current() and self.parent is not None

    def use(self) -> Share:
        self.users += 1
        if self.closing is not None:
            self.closing.cancel()
            self.closing = None
        return self

    def release(self) -> None:
        self.users -= 1
        if not self.users and self.usable:
            # without a connection there is nothing worth keeping
            self.closing = self.clock.callLater(LINGER if self.connections.connected else 0, self.close)

    def close(self) -> None:
        self.closing = None
        if self.parent is not None:
            self.disownServiceParent()

    def stopService(self) -> Deferred[Any]:
        if self.closing is not None:
            self.closing.cancel()
            self.closing = None
        return Deferred.fromCoroutine(self.end())

    async def end(self) -> None:
        if self.client is not None:
            self.client.abort()
            await self.client.replies.delete(self.connections.leaving)
        await maybeDeferred(super().stopService)

    async def listen(self, timeout: float | None) -> Client:
        """Wait until replies can come. ``BrokerRefused``, or ``RpcConnectionError`` if that takes too long."""
        if self.client is None:
            self.client = Client(self.connections, standalone.NAME, self.config, self.clock)
            self.client.replies.listen(self.connections.consume).addBoth(self.tell)
        if not self.listening:
            waiter = self.waiting.wait()
            if timeout is not None:
                waiter.addTimeout(max(timeout, 0.0), self.clock)
            try:
                await waiter
            except DeferredTimeout:
                uri = sanitize_url(str(configuration.AMQP_URI.of(self.config)))
                raise RpcConnectionError(f"no broker at {uri} within {timeout:g} s: is it running?") from None
        return self.client

    def tell(self, outcome: Failure | None) -> None:
        self.listening = outcome is None
        if outcome is None:
            self.waiting.fire(None)
        else:
            self.close()  # whoever comes next tries anew
            self.waiting.fail(outcome)


def share_of(config: Mapping[str, Any], key: str) -> Share:
    """The share of that configuration, with one more user."""
    share: Share = current().services.get(key, lambda: Share(config))
    return share.use()


def key_of(config: Mapping[str, Any]) -> str:
    """Equal configurations have one share."""
    return json.dumps(dict(config), sort_keys=True, default=repr)


# Calls ----------------------------------------------------------------------------------------------------------------


class BlockingProxy(Generic[P]):
    """A proxy that lives from ``start`` to ``stop``, or as long as a ``with``. It may start again, in any thread.

    Args:
        config: as a service has it. It must have an ``AMQP_URI``.
        context_data: goes along with each call, to the service and to all that it calls.
        timeout: seconds for each call and for the start; ``RPC_TIMEOUT`` of the configuration if it isn't given.
        options: ``proxies.RequestOptions``.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        configuration.check(config)
        self.config = config
        self.key = key_of(config)
        self.caller = standalone.Caller.of(context_data)
        self.sending = default_options(config, options, timeout)
        self.starts = 0
        self.share: Share | None = None

    def proxy(self) -> P:
        """The proxy that calls are made through."""
        raise NotImplementedError  # the subclasses say: one service, or all

    def start(self) -> P:
        """Wait until calls can be made. Gives the proxy of the service, or of all services.

        Raises ``BrokerRefused``, and ``RpcConnectionError`` where no broker answers for the length of a call.
        """
        in_reactor(self.open)
        return self.proxy()

    def stop(self) -> None:
        """Undo one ``start``. When this returns, the broker has all calls, also those that nobody waits for."""
        if self.starts:
            in_reactor(self.close)

    def __enter__(self) -> P:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # In the reactor's thread

    async def open(self) -> None:
        self.starts += 1
        try:
            await self.use_share().listen(self.sending.timeout)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self.starts -= 1
        if self.starts:
            return
        share, self.share = self.share, None
        if share is not None and share.usable:
            try:
                await unconfirmed_of(self.caller).wait()
            finally:
                share.release()

    def use_share(self) -> Share:
        """Our share, or another one if it has failed, or if this process was forked since."""
        if self.share is None or not self.share.usable:
            self.share = share_of(self.config, self.key)
            self.caller.unconfirmed = None  # the messages of the other share, or of the parent, are not waited for here
        return self.share

    def begin_call(
        self, service: str, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], sending: Sending
    ) -> Deferred[Any]:
        """Begin a call over this process's connections, when they are ready."""
        if not self.starts:
            raise RuntimeError("this proxy is not started, or has been stopped: call inside of its `with`")
        share = self.use_share()
        call = (self.caller, service, method, args, kwargs, sending)
        if share.client is not None and share.listening:
            return share.client.call(*call)
        return Deferred.fromCoroutine(self.call_when_ready(share, call))

    async def call_when_ready(self, share: Share, call: tuple[Any, ...]) -> Any:
        client = await share.listen(self.sending.timeout)
        return await client.call(*call)


class ClusterRpcProxy(BlockingProxy[ClusterProxy]):
    """Calls to any service."""

    def proxy(self) -> ClusterProxy:
        return ClusterProxy(self.begin_call, self.sending, in_reactor)


class ServiceRpcProxy(BlockingProxy[ServiceProxy]):
    """Calls to one service: ``with ServiceRpcProxy("service_x", config) as x: x.method()``."""

    def __init__(
        self,
        service_name: str,
        config: Mapping[str, Any],
        context_data: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> None:
        super().__init__(config, context_data, timeout, **options)
        self.service_name = service_name

    def proxy(self) -> ServiceProxy:
        return ServiceProxy(self.begin_call, self.service_name, self.sending, in_reactor)


StandaloneProxyBase = BlockingProxy  # nameko's name
ClusterRpcClient = ClusterRpcProxy  # nameko 3's names
ServiceRpcClient = ServiceRpcProxy


# Events ---------------------------------------------------------------------------------------------------------------


class Dispatcher:
    """``dispatch(service_name, event_type, event_data)``, over connections that are made with the first event.

    It returns when the broker has the event. The service declares the exchange: until then, a dispatch raises
    ``ChannelClosedByBroker``. With ``mandatory=True`` an event that nobody listens to raises ``UndeliverableMessage``.
    A dispatcher need not be stopped. Options are ``amqp.options.PublishOptions``.
    """

    def __init__(self, config: Mapping[str, Any], **options: Unpack[PublishOptions]) -> None:
        configuration.check(config)
        self.config = config
        self.key = key_of(config)
        self.sending = Sending.of(config, options)
        self.serializers = Serializers(config)
        self.stopped = False
        self.unconfirmed: Unconfirmed | None = None

    def __call__(self, service_name: str, event_type: str, event_data: Any, *, delay: float | None = None) -> None:
        """Dispatch an event. With ``delay`` it is told so many seconds later."""
        in_reactor(self.send, service_name, event_type, event_data, delay)

    def stop(self) -> None:
        """No more events."""
        self.stopped = True

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def send(self, service_name: str, event_type: str, event_data: Any, delay: float | None) -> Deferred[None]:
        if self.stopped:
            raise RuntimeError("this dispatcher has been stopped, and can't be used any more")
        sending = self.sending if delay is None else self.sending.merged({"delay": delay}, of_call=True)
        properties, body = sending.write(self.serializers, event_data, {})
        exchange = constants.EVENT_EXCHANGE_TEMPLATE.format(service_name)
        share = share_of(self.config, self.key)

        def release(outcome: Any) -> Any:
            share.release()
            return outcome

        try:
            sent = send(share.connections, sending, exchange, event_type, properties, body, self)
        except Exception:
            share.release()
            raise
        return sent.addBoth(release)


def event_dispatcher(config: Mapping[str, Any], **options: Unpack[PublishOptions]) -> Dispatcher:
    """A function that dispatches events: see ``Dispatcher``."""
    return Dispatcher(config, **options)
