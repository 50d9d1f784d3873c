"""Messages to a program that is no service.

    def handle(body, message):
        print(body)
        message.ack()

    consumer = Consumer("amqp://guest:guest@localhost", queues=[Queue("q")], callbacks=[handle])
    consumer.run()

The connection is the consumer's own, and comes back by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txservices import configuration
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message, queue_of
from txservices.amqp.longbodies import Decoded, LongBodies, Places
from txservices.amqp.returning import Returning
from txservices.amqp.subscription import Subscription
from txservices.exceptions import DecodeError
from txservices.serialization import Serializers
from txservices.serialization.bounds import LongBody
from txservices.utils.waiting import call_all

__all__ = ["Consumer", "Reader"]

log = Logger()

Callback = Callable[[Any, Message], Any]


class Reader:
    """Hands each message of one consumer, with its body decoded, to ``handle``.

    A message that can't be read, or that ``handle`` fails on, is rejected and logged.

    Args:
        decode: ``Serializers.decode``.
        where: who consumes, for the log.
        places: see ``LongBodies``.
        not_read: called with a message that can't be read, and the error. If it gives true, it settles that message.
    """

    def __init__(
        self,
        decode: Callable[..., Any],
        handle: Callable[[Any, Message], Any],
        where: str,
        places: Places | None = None,
        not_read: Callable[[Message, Exception], bool] | None = None,
    ) -> None:
        self.not_read = not_read
        self.handle = handle
        self.where = where
        self.long = LongBodies(decode, self.receive, places)

    def receive(self, message: Message, decoded: Decoded | None = None) -> None:
        """Take a message as it is delivered, or again when its body has been decoded."""
        properties = message.properties
        try:
            if decoded is None:
                content_type, content_encoding = properties.get("content_type"), properties.get("content_encoding")
                body = self.long.read(content_type, content_encoding, message.body, message.headers, True)
            else:
                body = decoded()
            self.handle(body, message)
        except LongBody:
            self.long.add(message)
        except DecodeError as error:
            if self.not_read is not None and self.not_read(message, error):
                return
            # "message" is a key of Twisted's own
            log.error("{where}: {delivery} rejected: {error}", where=self.where, delivery=message, error=error)
            message.reject()
        except BaseException:  # raised further, it would end the connection, and the message would come again
            log.failure("{where}: {delivery} rejected: it can't be handled", where=self.where, delivery=message)
            message.reject()


class Consumer:
    """Calls functions with each message of some queues, over a connection of its own, which comes back by itself.

    A callback gets a body and its message, and acks the message. A message that can't be read, or whose callback
    raises, is rejected and logged.

    Args:
        amqp_uri, ssl, login_method, heartbeat: as in a configuration.
        queues: these are declared, with their exchanges and bindings, and consumed.
        callbacks: functions of a body and a message. Each message goes to all of them, one after the other.
        prefetch_count: how many messages of each queue may be under way at once; 0 for no limit.
        accept: names of the serializers that are read. If it isn't given, that is JSON alone.
    """

    def __init__(
        self,
        amqp_uri: str,
        ssl: Any = None,
        login_method: str | None = None,
        queues: Iterable[Any] = (),
        callbacks: Iterable[Callback] = (),
        heartbeat: int | None = configuration.HEARTBEAT.default,
        prefetch_count: int = 0,
        accept: Iterable[str] | None = None,
    ) -> None:
        config = {
            configuration.AMQP_URI.name: amqp_uri,
            configuration.AMQP_SSL.name: ssl,
            configuration.LOGIN_METHOD.name: login_method,
            configuration.HEARTBEAT.name: heartbeat,
            configuration.ACCEPT.name: None if accept is None else list(accept),
        }
        self.queues = [queue_of(queue) for queue in queues]
        self.callbacks = list(callbacks)
        self.prefetch_count = prefetch_count
        self.connections = Connections.from_config(config)
        self.returning = Returning(self.connections.clock)
        self.decode = Serializers(config).decode
        self.opened: list[Subscription] = []
        self.ended: Deferred[None] = Deferred()
        self.should_stop = False

    def run(self) -> Deferred[None]:
        """Begin to consume. Fires when it has stopped. ``wait_until_consumer_ready`` fails if it can't begin."""
        self.connections.startService()
        for queue in self.queues:
            receive = Reader(self.decode, self.on_message, queue.name).receive
            self.opened.append(self.connections.consume(queue, receive, self.prefetch_count))
        return self.ended

    def wait_until_consumer_ready(self) -> Deferred[None]:
        """Fires when all queues are consumed. Fails with ``DeclarationMismatch`` or ``BrokerRefused``."""
        return Deferred.fromCoroutine(call_all([partial(ready, consumer) for consumer in self.opened]))

    def on_message(self, body: Any, message: Message) -> None:
        if self.should_stop:
            message.reject(requeue=True)
            return
        for callback in self.callbacks:
            callback(body, message)

    def ack_message(self, message: Message) -> None:
        """Ack a message. This does nothing if its connection is gone: the broker has the message again."""
        self.returning.forget(message)
        message.ack()

    def requeue_message(self, message: Message) -> None:
        """Give a message back to its queue; it comes again, to any consumer.

        The first time that is at once. A message that comes back again and again waits longer each time, up to some
        seconds. This does nothing if its connection is gone: the broker has the message again.
        """
        self.returning.give_back(message)

    def stop(self) -> Deferred[None]:
        """Take no more messages, and close. Those that are not acked go back. Fires when it has closed."""
        self.should_stop = True
        self.returning.cancel()
        return Deferred.fromCoroutine(self.close())

    async def close(self) -> None:
        for consumer in self.opened:
            await self.connections.leaving.answered(consumer.cancel())
        await self.connections.stopService()
        if not self.ended.called:
            self.ended.callback(None)


def ready(consumer: Subscription) -> Deferred[None]:
    return consumer.ready
