"""How a client's connection begins: the protocol header, the login, the limits agreed on, the virtual host.

    bytes -> read_opening -> connection.start        start-ok -> tune        tune-ok        open -> open-ok

Each step names the next one in ``expects``. A ``Session`` has a handshake until it is through.
"""

from __future__ import annotations

from platform import python_version
from typing import Any, Protocol

from twisted.logger import Logger

from txservices import __version__
from txservices.broker.vhost import VirtualHost
from txservices.exceptions import AmqpError
from txservices.wire.frames import FRAME_MAX, Content, FrameReader
from txservices.wire.heartbeat import Heartbeat
from txservices.wire.login import READABLE
from txservices.wire.spec import FRAME_MIN_SIZE, FRAME_OVERHEAD, PROTOCOL_HEADER, ReplyCode

log = Logger()

CHANNEL_MAX = 2047  # channels; RabbitMQ's own default
HEARTBEAT = 60  # seconds wished for; RabbitMQ's own default
LOGIN_FRAME_MAX = 8_192  # bytes of a frame before the limits are agreed on; RabbitMQ takes 4,096, and this since 4.1
SHOWN_MAX = 64  # characters of a client's name that the log shows
NAME_SHOWN_MAX = 512  # characters of the name that a client has for its connection, in the log

SERVER_PROPERTIES = {
    "product": "txservices",
    "version": __version__,
    "platform": f"Python {python_version()}",
    "capabilities": {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "per_consumer_qos": True,
        "authentication_failure_close": True,
        "connection.blocked": True,
        "direct_reply_to": True,
    },
}


class Host(Protocol):
    """What a handshake asks of the broker."""

    def accepts(self, user: str, password: str, host: str) -> bool: ...

    def find_vhost(self, name: str, trusted: bool) -> VirtualHost: ...


class Connection(Protocol):
    """What a handshake asks of the connection that begins, and what it sets there."""

    transport: Any
    user: str
    name: str
    capabilities: dict[str, Any]
    channel_max: int
    frame_max: int
    heartbeat_interval: int
    heartbeat: Heartbeat
    reader: FrameReader

    @property
    def client(self) -> str: ...

    def write(self, data: bytes) -> None: ...

    def send(self, channel: int, method: str, **arguments: Any) -> None: ...

    def close(self, error: AmqpError) -> None: ...

    def close_transport(self) -> None: ...

    def enter(self, vhost: VirtualHost) -> None: ...


class Handshake:
    """A client that is not in yet.

    Args:
        trusted: the client is inside this process: any user and any virtual host are taken.
    """

    def __init__(self, session: Connection, broker: Host, trusted: bool) -> None:
        self.session = session
        self.broker = broker
        self.trusted = trusted
        self.opening = b""  # the part of the protocol header that has come
        self.expects = "connection.start-ok"

    def read_opening(self, data: bytes) -> bytes:
        """Take the eight bytes before the first frame, and return what follows them.

        A client of another protocol is told ours, and its connection is closed.
        """
        missing = len(PROTOCOL_HEADER) - len(self.opening)
        if not missing:
            return data
        self.opening += data[:missing]
        if not PROTOCOL_HEADER.startswith(self.opening):
            self.session.write(PROTOCOL_HEADER)
            self.session.close_transport()
            return b""
        if self.opening == PROTOCOL_HEADER:
            self.session.send(
                0,
                "connection.start",
                version_minor=9,
                server_properties=SERVER_PROPERTIES,
                mechanisms=" ".join(READABLE),
                locales=b"en_US",
            )
        return data[missing:]

    def method_received(self, content: Content) -> None:
        name = content.method.name
        if name != self.expects:
            raise AmqpError(ReplyCode.COMMAND_INVALID, f"{name} where {self.expects} was due", name)
        STEPS[name](self, content.args)

    def start_ok(self, args: dict[str, Any]) -> None:
        session = self.session
        capabilities, name = (args["client_properties"].get(key) for key in ("capabilities", "connection_name"))
        session.capabilities = capabilities if isinstance(capabilities, dict) else {}
        session.name = name[:NAME_SHOWN_MAX] if isinstance(name, str) else ""
        decode = READABLE.get(args["mechanism"])
        if decode is None:
            mechanism = repr(args["mechanism"][:SHOWN_MAX])
            self.refuse_login(f"no authentication mechanism {mechanism}: {' or '.join(READABLE)}")
            return
        session.user, password = decode(args["response"])
        host = getattr(session.transport.getPeer(), "host", "")
        if not self.trusted and not self.broker.accepts(session.user, password, host):
            self.refuse_login(f"Login was refused using authentication mechanism {args['mechanism']}")
            return
        session.send(0, "connection.tune", channel_max=CHANNEL_MAX, frame_max=FRAME_MAX, heartbeat=HEARTBEAT)
        self.expects = "connection.tune-ok"

    def refuse_login(self, text: str) -> None:
        """Tell the client, if it has said that it understands this. Otherwise just close, as AMQP has it."""
        session = self.session
        log.warn("{text}: {client}", text=text, client=session.client)
        if session.capabilities.get("authentication_failure_close"):
            session.close(AmqpError(ReplyCode.ACCESS_REFUSED, text, "connection.start-ok"))
        else:
            session.close_transport()

    def tune_ok(self, args: dict[str, Any]) -> None:
        """Take the limits agreed on. Zero means no wish for a limit, and no heartbeat."""
        frame_max = args["frame_max"] or FRAME_MAX
        channel_max = args["channel_max"] or CHANNEL_MAX
        if not FRAME_MIN_SIZE <= frame_max <= FRAME_MAX or channel_max > CHANNEL_MAX:
            raise AmqpError(
                ReplyCode.NOT_ALLOWED,
                f"frame_max {frame_max} is not from {FRAME_MIN_SIZE} to {FRAME_MAX}, or channel_max {channel_max} over"
                f" {CHANNEL_MAX}",
                "connection.tune-ok",
            )
        session = self.session
        session.channel_max = channel_max
        session.frame_max = frame_max
        session.reader.frame_max = frame_max + FRAME_OVERHEAD  # RabbitMQ, too, takes a payload of frame_max bytes
        session.heartbeat_interval = args["heartbeat"]
        session.heartbeat.start(session.heartbeat_interval)
        self.expects = "connection.open"

    def open(self, args: dict[str, Any]) -> None:
        session = self.session
        session.enter(self.broker.find_vhost(args["virtual_host"], self.trusted))
        if not self.trusted:  # one inside this process says itself that it is connected
            peer = session.transport.getPeer()
            where = f"{peer.host}:{peer.port}" if hasattr(peer, "port") else peer
            log.info("a connection from {where}: {client}", where=where, client=session.client)


STEPS = {
    "connection.start-ok": Handshake.start_ok,
    "connection.tune-ok": Handshake.tune_ok,
    "connection.open": Handshake.open,
}
