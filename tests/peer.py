"""One end of a connection in a test's hands: methods to write as bytes, and what the other end writes as methods.

What is tested stands at the other end: a ``Protocol`` (tests/amqp/peer.py) or a broker's ``Session``
(tests/broker/peer.py).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport

from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD, PROTOCOL_HEADER

Contents = list[tuple[int, frames.Content]]


class Transport(StringTransport):
    """A string transport that can be aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class FramePeer:
    """The base of the scripted ends, of a client or a broker.

    Attributes:
        transport: of the other end, which writes into it.
        heartbeats: how many have come.
        found: what the last look at the transport has found.
    """

    def __init__(self, other_end: Protocol) -> None:
        self.other_end = other_end
        self.transport = Transport()
        self.heartbeats = 0
        self.found: Contents = []
        self.assemblers: dict[int, frames.Assembler] = {}
        self.reader = frames.FrameReader(self.take)

    def take(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == frames.FRAME_HEARTBEAT:
            self.heartbeats += 1
            return
        if channel not in self.assemblers:
            self.assemblers[channel] = frames.Assembler(lambda content: self.found.append((channel, content)))
        self.assemblers[channel].frame(kind, payload)

    def contents(self) -> Contents:
        """What the other end has written since the last look: (channel, method with all that belongs to it)."""
        data = self.transport.value().removeprefix(PROTOCOL_HEADER)
        self.transport.clear()
        self.found = []
        self.reader.feed(data)
        return self.found

    def sent(self) -> list[tuple[int, str, dict[str, Any]]]:
        """The same as (channel, method, arguments)."""
        return [(channel, content.method.name, content.args) for channel, content in self.contents()]

    def write(self, data: bytes) -> None:
        self.other_end.dataReceived(data)

    def method(self, channel: int, name: str, **arguments: Any) -> None:
        self.write(method(channel, name, **arguments))

    def content(self, channel: int, name: str, properties: dict[str, Any], body: bytes, **arguments: Any) -> None:
        """Send a method that carries a message."""
        self.write(content(channel, name, properties, body, **arguments))


def method(channel: int, name: str, **arguments: Any) -> bytes:
    return frames.frame(FRAME_METHOD, channel, codec.encode_method(name, **arguments))


def content(channel: int, name: str, properties: dict[str, Any], body: bytes, **arguments: Any) -> bytes:
    payload = codec.encode_method(name, **arguments)
    return frames.content_frames(channel, payload, codec.encode_properties(properties), body)
