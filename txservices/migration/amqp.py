"""``nameko.amqp``: connections and producers of kombu's, for code that publishes by itself. They need kombu."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from txservices.amqp.publish import Publisher, UndeliverableMessage

__all__ = ["Publisher", "UndeliverableMessage", "get_connection", "get_producer"]


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
