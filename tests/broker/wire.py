"""A blocking client that says any bytes: the same conversation is held with RabbitMQ and with the embedded broker.

pika keeps a program from saying what AMQP forbids, and from seeing what comes besides the answer. This client does not.
"""

from __future__ import annotations

import socket
from typing import Any

from tests.peer import content, method
from txservices.wire import frames
from txservices.wire.spec import FRAME_BODY, PROTOCOL_HEADER

DEADLINE = 60  # seconds for an answer
QUIET = 0.4  # seconds after which nothing more is expected

Heard = tuple[int, str, dict[str, Any], bytes]  # channel, method, arguments, body

CAPABILITIES = {
    "consumer_cancel_notify": True,
    "authentication_failure_close": True,
    "connection.blocked": True,
    "basic.nack": True,
}


class Wire:
    """A connection to the broker at a port. ``heard`` has everything that came and was not asked for yet."""

    def __init__(self, port: int, vhost: str = "/", host: str = "127.0.0.1") -> None:
        self.vhost = vhost
        self.socket = socket.create_connection((host, port), timeout=DEADLINE)
        self.heard: list[Heard] = []
        self.bodies: list[int] = []  # sizes of the payloads of body frames
        self.assemblers: dict[int, frames.Assembler] = {}
        self.reader = frames.FrameReader(self.take, 1 << 20)
        self.end = ""  # how the connection ended: "closed" or "reset"

    def take(self, kind: int, channel: int, payload: bytes) -> None:
        if kind == frames.FRAME_HEARTBEAT:
            return
        if kind == FRAME_BODY:
            self.bodies.append(len(payload))
        if channel not in self.assemblers:

            def heard(found: frames.Content) -> None:
                self.heard.append((channel, found.method.name, {**found.args, **self.properties(found)}, found.body))

            self.assemblers[channel] = frames.Assembler(heard)
        self.assemblers[channel].frame(kind, payload)

    def properties(self, found: frames.Content) -> dict[str, Any]:
        return {"properties": found.properties} if found.method.content else {}

    # Saying

    def say(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def method(self, channel: int, name: str, **arguments: Any) -> Wire:
        return self.say(method(channel, name, **arguments))

    def publish(
        self,
        routing_key: Any,
        body: bytes = b"",
        exchange: str = "",
        channel: int = 1,
        mandatory: bool = False,
        **rest: Any,
    ) -> Wire:
        arguments = {"exchange": exchange, "routing_key": routing_key, "mandatory": mandatory}
        return self.say(content(channel, "basic.publish", rest, body, **arguments))

    def login(self, user: str = "guest", password: str = "guest", **client_properties: Any) -> Wire:
        """The handshake up to tune."""
        self.say(PROTOCOL_HEADER)
        self.wait("connection.start")
        return self.method(
            0,
            "connection.start-ok",
            client_properties={"capabilities": CAPABILITIES, **client_properties},
            mechanism="PLAIN",
            response=f"\0{user}\0{password}".encode(),
            locale="en_US",
        )

    def open(self, frame_max: int = 131_072, channel_max: int = 2047, channels: int = 1) -> Wire:
        """The whole handshake, and channels."""
        self.login()
        self.wait("connection.tune")
        self.method(0, "connection.tune-ok", channel_max=channel_max, frame_max=frame_max, heartbeat=0)
        self.method(0, "connection.open", virtual_host=self.vhost)
        self.wait("connection.open-ok")
        for number in range(1, channels + 1):
            self.call(number, "channel.open")
        return self

    # Hearing

    def read(self, seconds: float) -> bool:
        """Take the next bytes. Gives whether any came."""
        if self.end:
            return False
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        except ConnectionError:
            self.end = "reset"
            return False
        if not data:
            self.end = "closed"
            return False
        self.reader.feed(data.removeprefix(PROTOCOL_HEADER))
        return True

    def up_to(self, *names: str) -> list[Heard]:
        """Everything up to the next of those methods. It ends with a close, or with silence, if that comes before."""
        looked = 0
        while True:
            for index, heard in enumerate(self.heard[looked:], looked):
                if heard[1] in names or heard[1] in ("channel.close", "connection.close"):
                    found, self.heard = self.heard[: index + 1], self.heard[index + 1 :]
                    return found
            looked = len(self.heard)
            if not self.read(DEADLINE):
                found, self.heard = self.heard, []
                return [*found, (0, self.end or "silence", {}, b"")]

    def wait(self, *names: str) -> Heard:
        """The next of those methods that is heard; what came before it is gone. A close is heard instead of it."""
        return self.up_to(*names)[-1]

    def call(self, channel: int, name: str, **arguments: Any) -> Heard:
        """Say a method, and wait for its answer."""
        self.method(channel, name, **arguments)
        answers = (f"{name}-ok", "basic.get-empty") if name == "basic.get" else (f"{name}-ok",)
        return self.wait(*answers)

    def rest(self) -> list[Heard]:
        """Everything that is still heard, until it is quiet."""
        while self.read(QUIET):
            pass
        heard, self.heard = self.heard, []
        return heard

    def leave(self) -> None:
        """Close in order, if the connection still can: when RabbitMQ answers, it has deleted the exclusive queues."""
        try:
            if not self.end:
                self.socket.settimeout(1)
                self.method(0, "connection.close", reply_code=200)
                while "connection.close-ok" not in [name for _, name, *_ in self.heard] and self.read(1):
                    pass
        except Exception:  # a conversation may end in the middle of a frame
            pass
        self.close()

    def close(self) -> None:
        self.socket.close()
