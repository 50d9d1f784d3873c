"""The broker of a process: the one that is configured, the embedded one, or the one that is there already.

With no AMQP_URI the embedded broker listens on EMBEDDED_BROKER_ADDRESS, and the services of this process join it in
memory. Another process finds that port answering AMQP, and meets them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from txservices.broker.broker import Broker
from txservices.broker.memory import brokers
from txservices.command import probe
from txservices.constants import (
    AMQP_URI_CONFIG_KEY,
    DEFAULT_EMBEDDED_BROKER_ADDRESS,
    EMBEDDED_BROKER_ADDRESS_CONFIG_KEY,
)
from txservices.exceptions import ConfigurationError

EMBEDDED = "embedded"  # the broker's name in memory://embedded


def embedded_address(config: Mapping[str, Any]) -> tuple[str, int]:
    given = str(config.get(EMBEDDED_BROKER_ADDRESS_CONFIG_KEY) or DEFAULT_EMBEDDED_BROKER_ADDRESS)
    host, _, port = given.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"{EMBEDDED_BROKER_ADDRESS_CONFIG_KEY}: {given!r} is no address: write host:port, 127.0.0.1:5672"
        )
    return host or "127.0.0.1", int(port)


async def listen(host: str, port: int, reactor: Any) -> Broker:
    """The embedded broker, listening, and memory://embedded in this process. May raise CannotListenError."""
    broker = Broker(EMBEDDED, clock=reactor)
    await broker.listen(host, port)
    brokers[EMBEDDED] = broker
    return broker


async def close(broker: Broker | None) -> None:
    if broker is not None:
        brokers.pop(EMBEDDED, None)
        await broker.stop()


async def for_client(config: Mapping[str, Any], reactor: Any) -> dict[str, Any]:
    """The config for a program that runs no service: with nothing configured, it goes where they are."""
    if config.get(AMQP_URI_CONFIG_KEY):
        return dict(config)
    host, port = embedded_address(config)
    uri = await neighbour(host, port, reactor)
    if uri is None:
        raise ConfigurationError(
            f"no broker on {host}:{port}: start one (`txservices run MODULE`, `txservices broker`),"
            f" or name yours with --broker or {AMQP_URI_CONFIG_KEY}"
        )
    return {**config, AMQP_URI_CONFIG_KEY: uri}


async def neighbour(host: str, port: int, reactor: Any) -> str | None:
    """The URI of the broker that answers on `host:port`: another process's embedded one, or RabbitMQ."""
    answer = await probe.ask(host, port, reactor)
    if answer is probe.Answer.OTHER:
        raise ConfigurationError(
            f"port {port} on {host} is taken, and by something that does not speak AMQP: name a broker with"
            f" --broker or {AMQP_URI_CONFIG_KEY}, or set {EMBEDDED_BROKER_ADDRESS_CONFIG_KEY} to a free port"
        )
    return f"amqp://guest:guest@{host}:{port}/" if answer is probe.Answer.BROKER else None
