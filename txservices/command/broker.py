"""Which broker a process uses if AMQP_URI is not configured: the embedded one, or the one on its port already.

The first process starts the embedded broker on EMBEDDED_BROKER_ADDRESS, and its own services reach it in memory. A
second process finds that this port is taken by a broker, and connects to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from txservices import configuration
from txservices.broker.memory import brokers
from txservices.broker.server import Broker
from txservices.command import probe
from txservices.exceptions import ConfigurationError
from txservices.utils.address import BROKER_ADDRESS, host_and_port

CLIENT_START_TIMEOUT = 5.0  # seconds
EMBEDDED = "embedded"  # the name of the broker in memory://embedded


def embedded_address(config: Mapping[str, Any]) -> tuple[str, int]:
    address = host_and_port(configuration.EMBEDDED_BROKER_ADDRESS.of(config), BROKER_ADDRESS)
    assert address is not None, "the key's check knows no other"
    return address


async def listen(host: str, port: int, reactor: Any, users: Mapping[str, str]) -> Broker:
    """Start the embedded broker on a port, and as memory://embedded in this process. May raise CannotListenError.

    ``users`` are passwords by name.
    """
    broker = Broker(EMBEDDED, clock=reactor, users=users)
    await broker.listen(host, port)
    brokers[EMBEDDED] = broker
    return broker


async def close(broker: Broker | None) -> None:
    if broker is not None:
        brokers.pop(EMBEDDED, None)
        await broker.close()


async def for_client(config: Mapping[str, Any], reactor: Any) -> dict[str, Any]:
    """The config of a program that only calls services. If it names no broker, one on the embedded port is added.

    A broker that is not there is waited for no longer than ``CLIENT_START_TIMEOUT``, unless the config says otherwise.
    ``ConfigurationError`` if nothing answers on the embedded port.
    """
    config = {configuration.BROKER_START_TIMEOUT.name: CLIENT_START_TIMEOUT, **config}
    if configuration.AMQP_URI.of(config):
        return config
    host, port = embedded_address(config)
    uri = await neighbour(host, port, reactor, configuration.EMBEDDED_BROKER_USERS.of(config))
    if uri is None:
        raise ConfigurationError(
            f"no broker on {host}:{port}: start one (`txservices run MODULE`, `txservices broker`),"
            f" or name yours with --broker or {configuration.AMQP_URI.name}"
        )
    return {**config, configuration.AMQP_URI.name: uri}


async def neighbour(host: str, port: int, reactor: Any, users: Mapping[str, str]) -> str | None:
    """The URI of the broker that listens on `host:port`, or None if nothing does. It may be RabbitMQ, too.

    The first of its users is in the URI, with the password.
    ``ConfigurationError`` if something listens there that is not a broker.
    """
    answer = await probe.ask(host, port, reactor)
    if answer is probe.Answer.OTHER:
        raise ConfigurationError(
            f"port {port} on {host} is taken by a program that does not speak AMQP: name a broker with"
            f" --broker or {configuration.AMQP_URI.name}, or set {configuration.EMBEDDED_BROKER_ADDRESS.name} to a"
            " free port"
        )
    return uri_of(host, port, users) if answer is probe.Answer.BROKER else None


def uri_of(host: str, port: int, users: Mapping[str, str]) -> str:
    """The URI of an embedded broker, for the first of its users."""
    user, password = next(iter(users.items()))
    return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{host}:{port}/"
