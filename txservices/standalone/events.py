"""Events from a program that is no service, in the name of a service.

    async with event_dispatcher({"AMQP_URI": "amqp://guest:guest@localhost"}) as dispatch:
        await dispatch("service_a", "event_type", "payload")

No context goes along, because there is no worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import Unpack

from txservices import constants
from txservices.amqp.connections import Connections
from txservices.amqp.options import PublishOptions, Sending
from txservices.amqp.publish import send, unconfirmed_of
from txservices.events import get_event_exchange
from txservices.observers import observers
from txservices.serialization import Serializers
from txservices.shared import Observed
from txservices.utils.waiting import Unconfirmed

__all__ = ["Dispatcher", "event_dispatcher", "get_event_exchange"]


class Dispatcher:
    """``dispatch(service_name, event_type, event_data)``, over a connection that is made with the first event.

    The service declares the exchange: until then, a dispatch fails with ``ChannelClosedByBroker``. With
    ``mandatory=True`` an event that nobody listens to fails with ``UndeliverableMessage``. Options are
    ``amqp.options.PublishOptions``.
    """

    def __init__(self, config: Mapping[str, Any], clock: Any = None, **options: Unpack[PublishOptions]) -> None:
        self.config = config
        self.connections = Connections.from_config(config, clock)
        Observed(config).setServiceParent(self.connections)
        self.sending = Sending.of(config, options)
        self.serializers = Serializers(config)
        self.stopped = False
        self.unconfirmed: Unconfirmed | None = None

    def start(self) -> Deferred[Dispatcher]:
        """Connect now; fires with this when the broker is there.

        Fails with ``BrokerRefused``, and with ``BrokerUnreachable`` after ``BROKER_START_TIMEOUT``.
        """
        self.connections.startService()
        return self.connections.publisher.connection.when_connected().addCallback(lambda _: self)

    def __call__(
        self, service_name: str, event_type: str, event_data: Any, *, delay: float | None = None
    ) -> Deferred[None]:
        """Dispatch an event; fires when the broker has it. With ``delay`` it is told so many seconds later."""
        if self.stopped:
            raise RuntimeError("this dispatcher has been stopped, and can't be used any more")
        if not self.connections.running:
            self.connections.startService()
        properties, body = self.sending.write(self.serializers, event_data, {})
        exchange = constants.EVENT_EXCHANGE_TEMPLATE.format(service_name)
        sending = self.sending if delay is None else self.sending.merged({"delay": delay}, of_call=True)
        sent = send(self.connections, sending, exchange, event_type, properties, body, self)
        if observers.event_dispatched:
            observers.tell(observers.event_dispatched, service_name, event_type)
        return sent

    def stop(self) -> Deferred[None]:
        """Take no more events. Fires when all events are confirmed or have failed, and the connection is closed."""
        self.stopped = True
        return unconfirmed_of(self).wait().addCallback(lambda _: self.connections.stopService())

    async def __aenter__(self) -> Dispatcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def event_dispatcher(config: Mapping[str, Any], **options: Unpack[PublishOptions]) -> Dispatcher:
    """A function that dispatches events: see ``Dispatcher``."""
    return Dispatcher(config, **options)
