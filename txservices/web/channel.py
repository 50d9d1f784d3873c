"""The connection of an HTTP client: bytes to requests, one after the other, and how it ends.

    dataReceived -> buffer -> Turn -> step: read_head, read_body or read_chunk -> Received -> request_done -> step ...

A client may end its own side and still wait for answers, as ``nc -N`` and many probes do: everything that has come is
answered, then the connection is closed. So a client that ends its side and is gone looks the same, until something is
written to it. One that resets the connection is gone at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from werkzeug.exceptions import HTTPException, default_exceptions
from zope.interface import implementer

from txservices.deadlines import FOREVER
from txservices.web.chunks import Chunks
from txservices.web.heads import BARE_LF, UNREAD, Head, Refused, bad, framing_of, read_head
from txservices.web.ours import ours
from txservices.web.problems import error_response

REQUEST_LINE_MAX = 16 * 1024  # bytes
HEAD_MAX = 16 * 1024  # bytes
REQUEST_TIMEOUT = 60.0  # seconds
BODY_GRACE = 20.0  # seconds before a body must have come at WEB_BODY_RATE
LINGER = 5.0  # seconds
BUFFER_MAX = 16 * 1024  # bytes that may wait here for their turn; then nothing more is read

READ_MAX = 256 * 1024  # bytes of a long body that are read at once: with Twisted's 64 KiB it takes twice as long

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = Logger()


@implementer(IHalfCloseableProtocol)
class Channel(HTTPChannel):
    """The connection of a client.

    Attributes:
        deadline: the time by which its next request must be complete. Infinite while a request is answered.
        answering: whether a request is being answered.
        idle: whether it is kept open for another request after one was answered.
        taken_over: called with what comes, once the connection does not speak HTTP any more.
    """

    # Of Twisted's class it is what has to do with writing, and with producers. Twisted's parser repairs much that RFC
    # 9112 lets a server refuse, handles all requests of a chunk at once, and takes the end of the client's side for the
    # client's end. The site looks at all deadlines once a second: Twisted's own way is a delayed call for each request.

    site: Any
    transport: Any
    persistent: bool
    requests: list[Any]
    deadline = FOREVER
    answering = False
    idle = False
    held_since: float | None = None  # when the body began to wait for the method that reads it
    working = False  # whether the turn has our step
    reading = True
    ended = False  # whether the client sends nothing more
    taken_over: Callable[[bytes], None] | None = None
    # The method that reads on; None where a head is due, so that an idle connection keeps no bound method.
    next: Callable[[], bool] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.head: Any = None
        self.buffer = bytearray()
        self.searched = 0  # bytes of the buffer that have no end of a head
        self.left = 0  # bytes of a body of known length that have not come

    def connectionMade(self) -> None:
        super().connectionMade()
        self.peer = self.transport.getPeer()
        self.here = self.transport.getHost()
        self.wait(REQUEST_TIMEOUT)
        self.site.opened(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.read_no_more()
        self.buffer.clear()
        super().connectionLost(reason)
        self.site.closed(self)

    def wait(self, seconds: float) -> None:
        """Give the client so many seconds, from now on."""
        self.deadline = self.site.reactor.seconds() + seconds

    def getPeer(self) -> Any:
        return self.peer

    def getHost(self) -> Any:
        return self.here

    # In

    def dataReceived(self, data: bytes) -> None:
        if self.taken_over is not None:
            self.taken_over(data)
            return
        if len(data) < self.left and not (self.buffer or self.working or self.held_back()):
            self.left -= len(data)  # the body goes on, and this is not the end of it: nothing is to be parsed
            self.requests[0].handleContentChunk(data)
            self.wait_for_body()
            return
        self.buffer += data
        self.go_on()

    def readConnectionLost(self) -> None:
        """Twisted calls this when the client has ended its side."""
        self.ended = True
        if self.taken_over is not None or (self.requests and self.requests[0].needs_client):
            self.transport.loseConnection()
        else:
            self.go_on()

    def writeConnectionLost(self) -> None:
        """Twisted calls this when we have ended our side. Nothing is to be done."""

    def go_on(self) -> None:
        """Have the turn handle what has come, unless it does so already, or an answer is waited for."""
        if not (self.working or self._handlingRequest):
            self.working = True
            self.site.turn.work(self.step)
        if self.reading and len(self.buffer) > BUFFER_MAX:
            self.reading = False
            self._networkProducer.pauseProducing()

    def step(self) -> bool:
        """Handle one request, or one piece of one. Gives whether more can be handled now."""
        try:
            more = not self._waitingForTransport and (self.next or self.read_head)()
            if not more and self.ended and not (self._handlingRequest or self._waitingForTransport):
                self.end()
        except Refused as refused:
            if self.next is not None and self.requests[0].upload is not None:
                self.break_off(ours(default_exceptions[int(refused.status[:3])](refused.reason)))
            else:
                self.refuse(refused.status, refused.reason)
            more = False
        except Exception:
            log.failure("a request of {peer} is broken off", peer=self.peer)
            self.transport.abortConnection()
            more = False
        self.working = more
        self.read_on()
        return more

    def read_on(self) -> None:
        """Read again what comes, if there is room for it."""
        if not (self.reading or self.ended or self._waitingForTransport) and len(self.buffer) <= BUFFER_MAX:
            self.reading = True
            self._networkProducer.resumeProducing()

    def end(self) -> None:
        """The client has ended its side, and all is answered. Raises ``Refused`` if a request is not complete."""
        if self.held_since is not None:
            return
        if self.next != self.ignore and (self.requests or self.buffer):
            raise bad("the request is not complete")
        self.loseConnection()

    def read_no_more(self) -> None:
        """Drop what comes from now on."""
        self.next = self.ignore
        self.left = 0

    def ignore(self) -> bool:
        self.buffer.clear()
        return False

    def read_head(self) -> bool:
        buffer = self.buffer
        if self.searched < 2 and buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: some clients end a body so
            del buffer[:2]
            self.searched = 0
        end = buffer.find(b"\r\n\r\n", max(0, self.searched - 3))
        if not 0 <= end < HEAD_MAX:
            self.check_partial(end)
            self.searched = len(buffer)
            return False
        self.searched = 0
        data = bytes(buffer[: end + 2])
        del buffer[: end + 4]
        self.head = head = read_head(data)
        request: Any = self.requestFactory(self)
        request.head = head
        self.requests.append(request)
        length, closing, waiting = framing_of(head)
        self.persistent = not closing
        if length == 0:
            return self.body_complete()
        if self.site.streaming:
            request.find_reader(head, waiting)
        request.gotLength(length)
        self.body_began = self.site.reactor.seconds()
        self.wait_for_body()
        self.left = length or 0
        if length is None or length > READ_MAX:
            self.transport.bufferSize = READ_MAX
        self.chunks = Chunks()
        self.next = self.read_chunk if length is None else self.read_body
        if request.upload is not None:
            request.begin_request(*request_line(head))
        elif waiting and not buffer:
            self.write(CONTINUE)
        return bool(buffer)

    def check_partial(self, end: int) -> None:
        """Raise ``Refused`` for a head that is not complete yet, and can't become a valid one."""
        buffer = self.buffer
        if (buffer.find(b"\r\n") if b"\r\n" in buffer else len(buffer)) > REQUEST_LINE_MAX:
            raise Refused("414 URI Too Long", f"the request line is over {REQUEST_LINE_MAX} bytes")
        if end >= HEAD_MAX or len(buffer) >= HEAD_MAX + 4:
            raise Refused("431 Request Header Fields Too Large", f"the headers are over {HEAD_MAX} bytes")
        if BARE_LF.search(buffer, self.searched):
            raise bad("a line ends in LF alone")
        if buffer and buffer[0] <= 0x20 and buffer != b"\r":  # TLS, for example
            raise bad("this is not HTTP")

    def send_continue(self) -> None:
        """Called when the method begins to read a body for which its client waits."""
        if not (self.buffer or self.requests[0].startedWriting):
            self.write(CONTINUE)

    def held_back(self) -> bool:
        """Whether the body has to wait for the method that reads it. Then the client's time does not pass."""
        upload = self.requests[0].upload
        if upload is None or not upload.full:
            return False
        if self.held_since is None:
            self.held_since = self.site.reactor.seconds()
            self.deadline = FOREVER
        return True

    def read_body_on(self) -> None:
        """Called when the method has read."""
        if self.held_since is not None:
            self.body_began += self.site.reactor.seconds() - self.held_since
            self.held_since = None
            self.wait_for_body()
        self.go_on()

    def break_off(self, error: HTTPException) -> None:
        """The rest of a body can't be had, and its method reads it already: the method answers."""
        self.read_no_more()
        self.persistent = False
        self._handlingRequest = True
        self.requests[0].upload.fail(error)

    def linger(self) -> None:
        """Everything is answered, and the client may still send: end our side, and drop what comes for a while."""
        self.read_no_more()
        self.wait(LINGER)
        if self.ended or self.isSecure():  # TLS ends both sides at once
            self.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def read_body(self) -> bool:
        if self.held_back():
            return False
        piece = bytes(self.buffer[: self.left])
        del self.buffer[: len(piece)]
        self.left -= len(piece)
        if piece:
            self.requests[0].handleContentChunk(piece)
            self.wait_for_body()
        return self.body_complete() if not self.left else False

    def read_chunk(self) -> bool:
        if self.held_back():
            return False
        piece = self.chunks.read(self.buffer)
        if piece == b"":
            return self.body_complete()
        if piece:
            self.requests[0].handleContentChunk(piece)
            self.wait_for_body()
        return piece is not None

    def wait_for_body(self) -> None:
        """Give the client time for the next piece: until then the whole body must have come fast enough."""
        rate = self.site.body_rate
        self.wait(REQUEST_TIMEOUT)
        if rate:
            self.deadline = min(self.deadline, self.body_began + BODY_GRACE + self.requests[0].size / rate)

    def body_complete(self) -> bool:
        """Have the request answered. Gives whether the next one can be read: it is answered already."""
        self.next = None
        self._handlingRequest = True
        self.requests[0].requestReceived(*request_line(self.head))
        if self.taken_over is not None and self.buffer:
            data = bytes(self.buffer)
            self.buffer.clear()
            self.taken_over(data)
        return not self._handlingRequest and bool(self.buffer)

    def requestDone(self, request: Any) -> None:
        """The request is answered."""
        self.requests.clear()
        self.head = None
        if request.upload is not None and not request.upload.complete:
            request.upload.drop()
            self._handlingRequest = False
            self.linger()
            self.go_on()
        elif self.persistent:
            self._handlingRequest = False
            if self.buffer or self.ended or not self.reading:
                self.go_on()
        else:
            self.loseConnection()

    def pauseProducing(self) -> None:
        """The transport is full: nothing more is answered."""
        self._waitingForTransport = True
        if self._requestProducer is not None:
            self._requestProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has sent what was written."""
        self._waitingForTransport = False
        if self._requestProducer is not None:
            self._requestProducer.resumeProducing()
        if self.taken_over is None:
            self.go_on()

    def loseConnection(self) -> None:
        self.read_no_more()
        super().loseConnection()

    # Out

    def refuse(self, status: str, reason: str, headers: str = "") -> None:
        """Answer a client whose connection can't be used any more, and end our side.

        What it sends is still read for a while: a client that is cut off while it sends may not see the answer.
        """
        error = error_response(reason, int(status[:3]), self.site.as_problem)
        text = error.get_data(as_text=True)
        self.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {error.content_type}\r\nContent-Length: {len(text)}\r\n{headers}"
            f"Date: {self.site.date.decode()}\r\nConnection: close\r\n\r\n{text}".encode()
        )
        for request in self.requests or [self.requestFactory(self)]:  # a new one if its head could not be read
            request.refused(self.head or UNREAD, int(status[:3]), len(text))
        self.linger()


def request_line(head: Head) -> tuple[bytes, bytes, bytes]:
    """Method, URL and version."""
    return head.method, head.target, b"HTTP/1.1" if head.http_1_1 else b"HTTP/1.0"
