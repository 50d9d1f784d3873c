"""``nameko.amqp``: connections and producers of kombu's, and a publisher, for code that publishes by itself.

They need kombu, except for the publisher that a provider has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from twisted.python import threadable

from txservices.amqp import publish
from txservices.amqp.publish import UndeliverableMessage, options_of
from txservices.constants import DEFAULT_RETRY_POLICY, PERSISTENT
from txservices.wire.spec import ReplyCode

__all__ = ["Publisher", "UndeliverableMessage", "get_connection", "get_producer"]

# nameko's, where a publisher's own options and a call's say nothing else
DEFAULTS = {
    "serializer": "json",
    "delivery_mode": PERSISTENT,
    "priority": 0,
    "mandatory": False,
    "retry": True,
    "retry_policy": DEFAULT_RETRY_POLICY,
}


@contextmanager
def get_connection(
    amqp_uri: str, ssl: Any = None, login_method: str | None = None, transport_options: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """A connection from kombu's pool for that address."""
    from kombu.connection import Connection
    from kombu.pools import connections

    made = Connection(amqp_uri, transport_options=dict(transport_options or {}), ssl=ssl, login_method=login_method)
    with connections[made].acquire(block=True) as connection:
        yield connection


@contextmanager
def get_producer(
    amqp_uri: str,
    confirms: bool = True,
    ssl: Any = None,
    login_method: str | None = None,
    transport_options: Mapping[str, Any] | None = None,
) -> Iterator[Any]:
    """A producer from kombu's pool for that address. With ``confirms`` a publish waits for the broker's confirm."""
    from kombu.connection import Connection
    from kombu.pools import producers

    options = {**(transport_options or {}), "confirm_publish": confirms}
    made = Connection(amqp_uri, transport_options=options, ssl=ssl, login_method=login_method)
    with producers[made].acquire(block=True) as producer:
        yield producer


class Publisher(publish.Publisher):
    """nameko's: outside the reactor it publishes by kombu, and the broker has the message when ``publish`` returns.

    ``UndeliverableMessage`` if no queue takes a mandatory message.
    """

    def publish(
        self,
        payload: Any,
        exchange: Any = None,
        routing_key: str | None = None,
        extra_headers: dict[str, Any] | None = None,
        worker_ctx: Any = None,
        declare: Iterable[Any] | None = None,
        **options: Any,
    ) -> Any:
        if self.running or threadable.isInIOThread():  # it is a provider's, or must not wait
            return super().publish(payload, exchange, routing_key, extra_headers, worker_ctx, declare, **options)
        given = {**DEFAULTS, **options_of(self), **self.options, **options}
        confirms, key = given.pop("use_confirms", True), given.pop("routing_key", "")
        own = {**(self.options.get("headers") or {}), **(options.get("headers") or {}), **(extra_headers or {})}
        given["headers"] = own
        given["declare"] = [*(self.options.get("declare") or ()), *(declare or ())]
        exchange = self.exchange if exchange is None else exchange
        routing_key = key if routing_key is None else routing_key
        from kombu.exceptions import ChannelError

        uri, ssl, login_method = self.config.values()
        with get_producer(uri, confirms, ssl, login_method) as producer:
            try:
                producer.publish(payload, exchange=exchange, routing_key=routing_key, **given)
            except ChannelError as error:
                if "NO_ROUTE" not in str(error):
                    raise
                name = getattr(exchange, "name", exchange)
                raise UndeliverableMessage(name, str(routing_key), ReplyCode.NO_ROUTE, "NO_ROUTE") from error
        return None
