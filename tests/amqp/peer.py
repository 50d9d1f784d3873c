"""A broker's side in a test's hands: what our ``Protocol`` writes as methods, and methods to answer with as bytes."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from txservices.amqp.channel import Channel
from txservices.amqp.protocol import Protocol
from txservices.utils.address import parse_address
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD, PROTOCOL_HEADER


class Peer:
    """A ``Protocol`` on a string transport and a clock, and the broker that a test plays for it."""

    def __init__(self, heartbeat: int = 0) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.transport.abortConnection = self.aborted
        self.was_aborted = False
        address = parse_address("amqp://user:s3cret@localhost/vh")
        self.protocol = Protocol(address, heartbeat, "PLAIN", "tests", self.clock)
        self.contents: list[tuple[int, frames.Content]] = []
        self.assemblers: dict[int, frames.Assembler] = {}
        self.heartbeats = 0
        self.reader = frames.FrameReader(self.take)

    def aborted(self) -> None:
        self.was_aborted = True

    def take(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == frames.FRAME_HEARTBEAT:
            self.heartbeats += 1
            return
        assembler = self.assemblers.setdefault(
            channel, frames.Assembler(lambda content: self.contents.append((channel, content)))
        )
        assembler.frame(kind, payload)

    def sent(self) -> list[tuple[int, str, dict[str, Any]]]:
        """What the protocol has written since the last look: (channel, method, arguments)."""
        self.protocol.flush()
        data = self.transport.value()
        self.transport.clear()
        if data.startswith(PROTOCOL_HEADER):
            data = data[len(PROTOCOL_HEADER) :]
        self.contents = []
        self.reader.feed(data)
        return [(channel, content.method.name, content.args) for channel, content in self.contents]

    def method(self, channel: int, name: str, **arguments: Any) -> None:
        """Send a method to the protocol."""
        self.protocol.dataReceived(frames.frame(FRAME_METHOD, channel, codec.encode_method(name, **arguments)))

    def content(self, channel: int, name: str, properties: dict[str, Any], body: bytes, **arguments: Any) -> None:
        """Send a method that carries a message."""
        payload = codec.encode_method(name, **arguments)
        self.protocol.dataReceived(frames.content_frames(channel, payload, codec.encode_properties(properties), body))

    def connect(self, server_heartbeat: int = 0) -> None:
        """The whole handshake."""
        self.protocol.makeConnection(self.transport)
        self.method(0, "connection.start", version_minor=9, mechanisms=b"PLAIN AMQPLAIN", locales=b"en_US")
        self.method(0, "connection.tune", channel_max=2047, frame_max=131072, heartbeat=server_heartbeat)
        self.method(0, "connection.open-ok")

    def open_channel(self) -> Channel:
        """An open channel of the connected protocol."""
        opened: list[Channel] = []
        self.protocol.open_channel().addCallback(opened.append)
        number = self.sent()[-1][0]
        self.method(number, "channel.open-ok")
        return opened[0]
