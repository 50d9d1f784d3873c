"""A client's WebSocket: frames to whole messages and back, by wsproto, on the connection that the handshake came on.

    Channel.dataReceived -> Socket.data_received -> receive(message)        send(text) -> Channel.write

The channel stays what it was for the site: it counts as one that is being answered, until it is closed. What a client
can make us hold is limited: a message is at most ``WEB_BODY_MAX`` bytes (closed with 1009), and one that does not take
what we send is left when ``BACKLOG_MAX`` bytes wait for it. No extension is spoken, so nothing comes in compressed.

One that is silent for ``PING_INTERVAL`` is asked whether it is there, and has gone if nothing comes from it within
``PING_TIMEOUT``: a cable that was pulled says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from werkzeug.wrappers import Response
from zope.interface import implementer

from txservices.web.messages import HttpRequest, text_response
from txservices.web.site import Received

try:
    import h11
    from wsproto import ConnectionType, WSConnection
    from wsproto.connection import ConnectionState
    from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, RejectConnection, TextMessage
    from wsproto.frame_protocol import CloseReason
    from wsproto.utilities import ProtocolError, RemoteProtocolError
except ImportError as error:
    raise ImportError(f"WebSockets need wsproto: pip install 'txservices[websocket]' ({error})") from error

__all__ = ["CloseReason", "Socket", "handshake"]

BACKLOG_MAX = 16 * 1024 * 1024  # bytes that wait for a client which does not read
PING_INTERVAL = 20.0  # seconds of silence before a ping; proxies on the way close what is silent for 60
PING_TIMEOUT = 20.0  # seconds for the answer, or anything else
OPEN = (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING)

log = Logger()


def handshake(received: Received, request: HttpRequest) -> WSConnection | Response:
    """The protocol after a good opening handshake, RFC 6455, 4.2; or what to answer to another request."""
    ws = WSConnection(ConnectionType.SERVER)
    try:
        if request.method != "GET" or received.clientproto != b"HTTP/1.1":
            raise RemoteProtocolError("a GET of HTTP/1.1 opens a WebSocket")
        headers = [(name, value) for name, values in received.requestHeaders.getAllRawHeaders() for value in values]
        ws.initiate_upgrade_connection(headers, received.uri)
        for _ in ws.events():
            pass  # the request, which we have
    except (ProtocolError, h11.ProtocolError, UnicodeError) as error:
        hint = getattr(error, "event_hint", None)
        status, headers = (hint.status_code, hint.headers) if isinstance(hint, RejectConnection) else (400, [])
        named = [(name.decode(), value.decode()) for name, value in headers]
        return text_response(f"Error: this is for WebSockets: {error}\n", status, named)
    return ws


@implementer(IPushProducer)
class Socket:
    """An open WebSocket.

    Args:
        receive: called with each message, text or bytes.
        gone: called once, when the connection is lost.
    """

    def __init__(
        self,
        received: Received,
        ws: WSConnection,
        message_max: int,
        receive: Callable[[str | bytes], None],
        gone: Callable[[], Any],
    ) -> None:
        self.channel: Any = received.channel
        self.ws = ws
        self.message_max = message_max
        self.receive = receive
        self.parts: list[str | bytes] = []
        self.size = 0
        self.backlog: int | None = None  # bytes sent since the client has stopped to read; None while it reads
        self.lost = self.pinged = self.paused = False
        self.gone = gone
        received.notifyFinish().addErrback(self.connection_lost)
        self.channel.dataReceived = self.data_received  # from now on it is no HTTP
        self.channel.timeoutConnection = self.silent
        self.channel.wait(PING_INTERVAL)
        self.channel.registerProducer(self, True)
        self.channel.transport.setTcpKeepAlive(True)
        self.channel.write(ws.send(AcceptConnection()))

    @property
    def open(self) -> bool:
        return self.ws.state is ConnectionState.OPEN and not self.lost

    def connection_lost(self, _: Any) -> None:
        self.lost = True
        self.gone()

    # In

    def data_received(self, data: bytes) -> None:
        if self.ws.state not in OPEN:
            return
        self.heard()
        try:
            self.ws.receive_data(data)
            for event in self.ws.events():
                self.react(event)
        except RemoteProtocolError as error:
            self.close(CloseReason.PROTOCOL_ERROR, str(error))

    def react(self, event: Any) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            self.part_received(event)
        elif isinstance(event, Ping):
            self.write(event.response())
        elif isinstance(event, CloseConnection):  # theirs, or wsproto's for frames that are none
            if self.ws.state in OPEN:
                self.write(event.response())
            self.channel.loseConnection()

    def part_received(self, part: Any) -> None:
        self.size += len(part.data)
        if self.size > self.message_max:
            self.close(CloseReason.MESSAGE_TOO_BIG, f"a message is over {self.message_max} bytes")
            return
        self.parts.append(part.data if isinstance(part, TextMessage) else bytes(part.data))
        if part.message_finished:
            parts: list[Any] = self.parts
            self.parts, self.size = [], 0
            self.receive(parts[0][:0].join(parts))

    def pause(self) -> None:
        """Take no more for now: the client has to wait, by TCP."""
        self.paused = True
        self.channel.transport.pauseProducing()

    def resume(self) -> None:
        self.paused = False
        self.heard()
        self.channel.transport.resumeProducing()

    # Whether somebody is there

    def heard(self) -> None:
        self.pinged = False
        self.channel.wait(PING_INTERVAL)

    def silent(self) -> None:
        """Nothing has come until the channel's deadline. Also where we have said goodbye, and nobody has heard it."""
        if self.paused and self.open:  # an answer would not be read either
            self.heard()
        elif self.open and not self.pinged:
            self.pinged = True
            self.channel.wait(PING_TIMEOUT)
            self.write(Ping())
        else:
            log.debug("{peer} answers no ping: its WebSocket is closed", peer=self.channel.getPeer())
            self.channel.transport.abortConnection()

    # Out

    def send(self, text: str) -> None:
        """Send a message; nothing if the socket is closed."""
        if self.open:
            self.write(TextMessage(text))

    def write(self, event: Any) -> None:
        data = self.ws.send(event)
        if self.backlog is not None:
            self.backlog += len(data)
            if self.backlog > BACKLOG_MAX:
                log.warn("{peer} does not read what its WebSocket gets: closed", peer=self.channel.getPeer())
                self.channel.transport.abortConnection()
                return
        self.channel.write(data)

    def close(self, code: CloseReason, reason: str) -> None:
        """Say why, and close."""
        if self.open:
            self.write(CloseConnection(code, reason[:100]))  # 123 bytes are what fits
            self.channel.loseConnection()

    def pauseProducing(self) -> None:
        self.backlog = 0

    def resumeProducing(self) -> None:
        self.backlog = None

    def stopProducing(self) -> None:
        """The connection is lost; ``gone`` is for that."""
