"""A client's side in a test's hands: a broker's ``Session`` is tested."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.peer import FramePeer, content
from txservices.broker.server import Broker
from txservices.broker.session import Session
from txservices.wire.spec import PROTOCOL_HEADER


class Client(FramePeer):
    """A connection to a broker on a clock. ``sent`` gives what has come since the last look."""

    def __init__(self, broker: Broker | None = None, trusted: bool = False, host: str = "127.0.0.1") -> None:
        self.broker = broker or Broker(clock=Clock())
        self.clock = self.broker.clock
        self.session = Session(self.broker, trusted)
        super().__init__(self.session)
        self.transport.peerAddr = IPv4Address("TCP", host, 1)
        self.session.makeConnection(self.transport)

    def names(self) -> list[str]:
        return [name for _, name, _ in self.sent()]

    def bodies(self) -> list[bytes]:
        """The bodies of the messages that have come."""
        return [content.body for _, content in self.contents() if content.method.content]

    def call(self, channel: int, name: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        """Send a method, and give the first that comes back."""
        self.sent()
        self.method(channel, name, **arguments)
        answers = [(method, args) for number, method, args in self.sent() if number in (channel, 0)]
        return answers[0] if answers else ("", {})

    def publish(self, routing_key: str, body: bytes = b"", exchange: str = "", channel: int = 1, **rest: Any) -> None:
        self.write(publish(routing_key, body, exchange, channel, **rest))

    def login(self, user: str = "guest", password: str = "guest", **capabilities: bool) -> None:
        """The handshake, up to tune."""
        self.write(PROTOCOL_HEADER)
        self.method(
            0,
            "connection.start-ok",
            client_properties={"capabilities": capabilities},
            mechanism="PLAIN",
            response=f"\0{user}\0{password}".encode(),
            locale="en_US",
        )

    def open(self, vhost: str = "/", heartbeat: int = 0, frame_max: int = 131072, **capabilities: bool) -> Client:
        """The whole handshake, and channel 1."""
        self.login(**(capabilities or {"consumer_cancel_notify": True}))
        self.method(0, "connection.tune-ok", channel_max=2047, frame_max=frame_max, heartbeat=heartbeat)
        self.method(0, "connection.open", virtual_host=vhost)
        self.method(1, "channel.open")
        self.sent()
        return self

    def declare(self, name: str = "q", **options: Any) -> None:
        self.method(1, "queue.declare", queue=name, **options)

    def consume(self, queue: str = "q", tag: str = "t", channel: int = 1, **options: Any) -> None:
        self.method(channel, "basic.consume", queue=queue, consumer_tag=tag, **options)

    def refusal(self, channel: int, name: str, **arguments: Any) -> tuple[str, int, str]:
        """How a method is refused: (channel.close or connection.close, code, text)."""
        answer, args = self.call(channel, name, **arguments)
        return answer, args.get("reply_code", 0), args.get("reply_text", "")

    def lose(self) -> None:
        """The connection is lost without a word."""
        self.session.connectionLost(Failure(ConnectionLost()))


def publish(
    routing_key: str,
    body: bytes = b"",
    exchange: str = "",
    channel: int = 1,
    mandatory: bool = False,
    **properties: Any,
) -> bytes:
    arguments = {"exchange": exchange, "routing_key": routing_key, "mandatory": mandatory}
    return content(channel, "basic.publish", properties, body, **arguments)
