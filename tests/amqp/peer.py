"""A broker's side in a test's hands: a ``Protocol`` is tested."""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.peer import Contents, FramePeer
from txservices.amqp.channel import Channel
from txservices.amqp.protocol import Protocol
from txservices.utils.address import parse_address


class Peer(FramePeer):
    """A ``Protocol`` on a clock, and the broker that a test plays for it."""

    def __init__(self, heartbeat: int = 0) -> None:
        self.clock = Clock()
        address = parse_address("amqp://user:s3cret@localhost/vh")
        self.protocol = Protocol(address, heartbeat, "PLAIN", "tests", self.clock)
        super().__init__(self.protocol)

    def contents(self) -> Contents:
        self.protocol.flush()
        return super().contents()

    def connect(self, server_heartbeat: int = 0, frame_max: int = 131072) -> None:
        """The whole handshake."""
        self.protocol.makeConnection(self.transport)
        self.method(0, "connection.start", version_minor=9, mechanisms=b"PLAIN AMQPLAIN", locales=b"en_US")
        self.method(0, "connection.tune", channel_max=2047, frame_max=frame_max, heartbeat=server_heartbeat)
        self.method(0, "connection.open-ok")

    def open_channel(self) -> Channel:
        """An open channel of the connected protocol."""
        opened: list[Channel] = []
        self.protocol.open_channel().addCallback(opened.append)
        number = self.sent()[-1][0]
        self.method(number, "channel.open-ok")
        return opened[0]
