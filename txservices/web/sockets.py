"""The WebSocket of a client: turns frames into messages and back, by wsproto, on the connection of the handshake.

    Channel.dataReceived -> Socket.data_received -> Turn -> step -> receive(message)    send(text) -> Channel.write

The site goes on to know the channel, as one whose request is being answered, until it is closed.

Limits: a message has at most ``WEB_BODY_MAX`` bytes and comes in at most ``FRAGMENTS_MAX`` frames, else the socket is
closed with code 1009; a compressed one is inflated up to that, see ``deflate``. All clients of an address share what
is done in a turn of the reactor: see ``utils.turns``. At most ``BACKLOG_MAX`` bytes wait for a client that does not
read, else the connection is cut. At most ``BACKLOGS_MAX`` bytes wait for all such clients together, else the one for
whom most bytes wait is cut. Likewise at most ``MESSAGES_MAX`` bytes have come of all messages that are not complete or
wait for their turn.

A client that is silent for ``PING_INTERVAL`` is sent a ping. If nothing comes from it within ``PING_TIMEOUT``, the
connection is cut: a pulled cable gives no other sign.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from werkzeug.wrappers import Response
from zope.interface import implementer

from txservices.web.channel import BUFFER_MAX
from txservices.web.messages import HttpRequest
from txservices.web.problems import error_response
from txservices.web.received import Received

try:
    import h11
    from wsproto import ConnectionType, WSConnection
    from wsproto.connection import ConnectionState
    from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, TextMessage
    from wsproto.events import Request as Opening
    from wsproto.frame_protocol import CloseReason
    from wsproto.utilities import ProtocolError, RemoteProtocolError

    from txservices.web.deflate import Deflate
except ImportError as error:
    raise ImportError(f"WebSockets need wsproto: pip install 'txservices[websocket]' ({error})") from error

__all__ = ["CloseReason", "Socket", "handshake"]

FRAGMENTS_MAX = 70_000  # frames of a message: Autobahn sends 4 MiB in 65,537, and browsers 128 KiB in one
READ_AT_ONCE = 8 * 1024  # bytes that wsproto is given; if they are compressed, they may become 8 MiB
BACKLOG_MAX = 16 * 1024 * 1024  # bytes that wait for a client that does not read
BACKLOGS_MAX = 64 * 1024 * 1024  # bytes that wait for all such clients of an address together
MESSAGES_MAX = 256 * 1024 * 1024  # bytes of messages from all clients of an address that are not handled yet
PING_INTERVAL = 20.0  # seconds of silence before a ping; many proxies close a connection after 60 silent seconds
PING_TIMEOUT = 20.0  # seconds to wait for the pong, or for anything else from the client
OPEN = (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)

log = Logger()


def handshake(
    received: Received, request: HttpRequest, subprotocols: Collection[str]
) -> tuple[WSConnection, str | None] | Response:
    """Read the opening handshake, RFC 6455, 4.2.

    Gives the protocol and the first of the ``subprotocols`` that the client asks for, or the response to a request that
    is no handshake.
    """
    ws = WSConnection(ConnectionType.SERVER)
    try:
        if request.method != "GET" or received.clientproto != b"HTTP/1.1":
            raise RemoteProtocolError("a GET of HTTP/1.1 opens a WebSocket")
        headers = [(name, value) for name, values in received.requestHeaders.getAllRawHeaders() for value in values]
        ws.initiate_upgrade_connection(headers, received.uri)
        (opening,) = ws.events()
        assert isinstance(opening, Opening)
    except (ProtocolError, h11.ProtocolError, UnicodeError) as error:
        hint = getattr(error, "event_hint", None)
        status, headers = (hint.status_code, hint.headers) if isinstance(hint, RejectConnection) else (400, [])
        named = [(name.decode(), value.decode()) for name, value in headers]
        return error_response(f"this is for WebSockets: {error}", status, received.site.as_problem, named)
    return ws, next((each for each in subprotocols if each in opening.subprotocols), None)


class Backlogs:
    """The bytes that wait for those clients of one address which do not read.

    Attributes:
        waiting: for each such socket the bytes written since its client stopped reading, with the write that filled
            the transport's buffer.
        total: the sum of these.
    """

    what = "wait for all clients that do not read"

    def __init__(self) -> None:
        self.waiting: dict[Socket, int] = {}
        self.total = 0

    def add(self, socket: Socket, size: int) -> None:
        """Count bytes more, and cut the sockets with the longest backlogs if all together are too long."""
        self.waiting[socket] = self.waiting.get(socket, 0) + size
        self.total += size
        while self.total > self.most and len(self.waiting) > 1:  # one long message goes to a single client
            slowest = max(self.waiting, key=self.waiting.__getitem__)
            slowest.cut(f"{self.total} bytes {self.what}")

    @property
    def most(self) -> int:
        return BACKLOGS_MAX

    def forget(self, socket: Socket) -> None:
        """The socket's client reads again, or is gone."""
        self.total -= self.waiting.pop(socket, 0)


class Messages(Backlogs):
    """The parts of messages that have come from the clients of one address, and are not handled yet."""

    what = "of messages from all clients are not handled yet"

    @property
    def most(self) -> int:
        return MESSAGES_MAX

    def handled(self, socket: Socket, size: int) -> None:
        """Count bytes less."""
        left = self.waiting.get(socket, 0) - size
        if left > 0:
            self.waiting[socket] = left
            self.total -= size
        else:
            self.forget(socket)


@implementer(IPushProducer)
class Socket:
    """An open WebSocket.

    Args:
        subprotocol: that the client is told.
        message_max: bytes that a message may have.
        backlogs: what waits for all clients of this address.
        messages: what has come of messages from all of them. ``receive`` has ``handled`` called for each of its own.
        receive: called with each message, a text as UTF-8.
        gone: called once, when the connection is lost.
    """

    def __init__(
        self,
        received: Received,
        ws: WSConnection,
        subprotocol: str | None,
        message_max: int,
        receive: Callable[[bytes], None],
        gone: Callable[[], Any],
        backlogs: Backlogs,
        messages: Messages,
    ) -> None:
        self.channel: Any = received.channel
        self.ws = ws
        self.message_max = message_max
        self.receive = receive
        self.message = bytearray()  # what has come of the current one
        self.fragments = 0
        self.buffer = bytearray()  # what has come, and wsproto has not seen
        self.events: Iterator[Any] = iter(())  # of what it has seen
        self.working = False  # whether the turn has our step
        self.reading = True
        self.backlog: int | None = None  # bytes written since the client stopped reading; None while it reads
        self.lost = self.pinged = self.paused = False
        self.gone = gone
        self.backlogs = backlogs
        self.messages = messages
        self.handled = partial(messages.handled, self)
        self.writing = 0  # bytes of the latest write
        received.notifyFinish().addErrback(self.connection_lost)
        self.channel.taken_over = self.data_received  # from now on the connection does not speak HTTP
        self.channel.timeoutConnection = self.silent
        self.channel.wait(PING_INTERVAL)
        self.channel.registerProducer(self, True)
        self.channel.transport.setTcpKeepAlive(True)
        self.channel.write(ws.send(AcceptConnection(subprotocol, [Deflate(message_max)])))
        received.code = 101
        received.tell_ended()

    @property
    def open(self) -> bool:
        return self.ws.state is ConnectionState.OPEN and not self.lost

    def connection_lost(self, _: Any) -> None:
        self.lost = True
        self.buffer.clear()
        self.backlogs.forget(self)
        self.messages.forget(self)
        self.gone()

    # In

    def data_received(self, data: bytes) -> None:
        if self.ws.state in OPEN:
            self.heard()
            self.buffer += data
            self.go_on()

    def go_on(self) -> None:
        """Have the turn handle what has come, unless it does so already, and read more if there is room for it."""
        if not (self.working or self.paused):
            self.working = True
            self.channel.site.turn.work(self.step)
        self.read_on()

    def read_on(self) -> None:
        reading = len(self.buffer) <= BUFFER_MAX and not self.paused
        if reading is not self.reading and not self.lost and self.ws.state in OPEN:
            self.reading = reading
            transport = self.channel.transport
            (transport.resumeProducing if reading else transport.pauseProducing)()

    def step(self) -> bool:
        """React to one frame, or to one piece of one. Gives whether more can be handled now."""
        more = not (self.lost or self.paused) and self.ws.state in OPEN
        try:
            event = next(self.events, None) if more else None
            if event is None and more and self.buffer:
                self.ws.receive_data(bytes(self.buffer[:READ_AT_ONCE]))
                del self.buffer[:READ_AT_ONCE]
                self.events = self.ws.events()
                event = next(self.events, None)
            if event is not None:
                self.react(event)
            more = event is not None or (more and bool(self.buffer))
        except RemoteProtocolError as error:
            self.close(CloseReason.PROTOCOL_ERROR, str(error))
        self.working = more
        self.read_on()
        return more

    def react(self, event: Any) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            self.part_received(event)
        elif isinstance(event, Ping):
            self.write(event.response())
        elif isinstance(event, CloseConnection):  # from the client, or from wsproto after a wrong frame
            if self.ws.state in OPEN:
                self.write(event.response())
            self.channel.loseConnection()

    def part_received(self, part: Any) -> None:
        if self.lost:  # it was cut
            return
        data = part.data.encode() if isinstance(part, TextMessage) else part.data
        self.fragments += part.frame_finished
        if len(self.message) + len(data) > self.message_max or self.fragments > FRAGMENTS_MAX:
            self.messages.handled(self, len(self.message))
            self.message.clear()
            limits = f"{self.message_max} bytes, or in over {FRAGMENTS_MAX} frames"
            self.close(CloseReason.MESSAGE_TOO_BIG, f"a message is over {limits}")
            return
        self.message += data
        self.messages.add(self, len(data))
        if self.lost:
            self.message.clear()
        elif part.message_finished:
            message = bytes(self.message)
            self.message.clear()
            self.fragments = 0
            self.receive(message)

    def pause(self) -> None:
        """Read no more for now, so that TCP makes the client wait."""
        self.paused = True
        self.read_on()

    def resume(self) -> None:
        self.paused = False
        self.heard()
        self.go_on()

    # Whether the client is still there

    def heard(self) -> None:
        self.pinged = False
        self.channel.wait(PING_INTERVAL)

    def silent(self) -> None:
        """Called when nothing has come by the channel's deadline: send a ping, or cut the connection."""
        if self.paused and self.open:  # we do not read, so we could not see a pong
            self.heard()
        elif self.open and not self.pinged:
            self.pinged = True
            self.channel.wait(PING_TIMEOUT)
            self.write(Ping())
        else:  # no pong, or the socket is closed and the client does not answer that
            log.debug("{peer} answers no ping: its WebSocket is closed", peer=self.channel.getPeer())
            self.channel.transport.abortConnection()

    # Out

    def send(self, text: str) -> None:
        """Send a message. Does nothing if the socket is closed."""
        if self.open:
            self.write(TextMessage(text))

    def write(self, event: Any) -> None:
        data = self.ws.send(event)
        if self.backlog is not None:
            self.backlog += len(data)
            if self.backlog > BACKLOG_MAX:
                self.cut(f"{self.backlog} bytes wait for it, and it does not read")
            else:
                self.backlogs.add(self, len(data))
        self.writing = len(data)
        if not self.lost:
            self.channel.write(data)

    def cut(self, why: str) -> None:
        """End the connection to a client that does not read, or sends too much. Messages that wait are dropped."""
        log.warn("the WebSocket of {peer} is closed: {why}", peer=self.channel.getPeer(), why=why)
        self.lost = True  # the transport tells in a later turn
        self.backlogs.forget(self)
        self.messages.forget(self)
        self.channel.transport.abortConnection()

    def close(self, code: CloseReason, reason: str) -> None:
        """Tell the client why, and close the connection."""
        if self.open:
            self.write(CloseConnection(code, reason[:100]))  # a close frame has room for 123 bytes
            self.channel.loseConnection()

    def pauseProducing(self) -> None:
        if self.backlog is None:  # Twisted's transport calls this at each write while its buffer is full
            self.backlog = 0
            self.backlogs.add(self, self.writing)

    def resumeProducing(self) -> None:
        self.backlog = None
        self.backlogs.forget(self)

    def stopProducing(self) -> None:
        """Does nothing: ``connection_lost`` is called as well."""
