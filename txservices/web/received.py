"""A request, from its head to the last byte of its answer.

    channel -> requestReceived -> the site's router -> a handler -> answer -> channel.write

It is twisted.web's Request, without the parts that most requests don't need.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http_headers import Headers
from twisted.web.server import Request
from werkzeug.utils import cached_property
from werkzeug.wrappers import Response

from txservices.deadlines import FOREVER
from txservices.observers import observers
from txservices.web.bodies import Sending, body_of, sliced
from txservices.web.channel import REQUEST_TIMEOUT
from txservices.web.heads import Head, Refused
from txservices.web.messages import BODYLESS, Plain, head_of
from txservices.web.uploads import BodyReader, Upload
from txservices.workers import WAITS

PIECE = 64 * 1024  # bytes of a response that are written together

Answer = Response | Plain


class Received(Request):
    """A request: when it is complete it goes to the router, and ``answer`` sends the response.

    The client may leave at any time. Then its worker goes on, and the answer is dropped.
    """

    site: Any
    channel: Any
    content: Any
    producer: Any = None
    head: Head
    needs_client = False  # whether it is of no use to answer a client that has ended its side
    size = 0  # bytes of the body
    scheme = "http"  # that its client has used
    upload: Upload | None = None  # the body, if its method reads it as it comes
    body_max = 0  # bytes that it may have
    route: str | None = None  # the rule that it matched
    call_id: str | None = None  # of its worker, if there is an access log
    began: float | None = None  # when it was complete, if somebody wants to know how long it takes

    def __init__(self, channel: Any) -> None:
        # Twisted's makes headers, cookies and more for each request, most of which ask for no part of it.
        self.channel = channel
        self.client, self.host = channel.peer, channel.here
        self.notifications = []

    def become_twisted(self) -> None:
        """Have all that Twisted's requests have, for a Resource of twisted.web's."""
        headers, notifications = self.requestHeaders, self.notifications
        super().__init__(self.channel)
        self.requestHeaders, self.notifications = headers, notifications
        self.finish_writing = super().finish  # type: ignore[method-assign]  # of this request

    # In

    @cached_property
    def requestHeaders(self) -> Headers:
        headers = Headers()
        for name, value in self.head.headers:
            headers.addRawHeader(name, value)
        return headers

    def gotLength(self, length: int | None) -> None:
        """Called when the head is complete and a body follows, with its length, or None if that is unknown."""
        site = self.channel.site
        self.body_max = site.body_max
        if site.limited:
            head = self.channel.head
            self.method, self.uri = head.method, head.target
            self.body_max = site.resource.body_max_of(self, site.body_max)
        if length is not None and length > self.body_max:
            self.refuse()
        if self.upload is None:
            super().gotLength(length)

    def find_reader(self, head: Head, expects: bool) -> None:
        """Have the method read the body as it comes, if it wants to."""
        self.method, self.uri = head.method, head.target
        if self.channel.site.resource.is_streamed(self):
            self.upload = Upload(self.channel, expects)
            self.content = BodyReader(self.upload)

    def handleContentChunk(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.body_max:
            self.refuse()
        if self.upload is None:
            self.content.write(data)
        else:
            self.upload.add(data)

    def refuse(self) -> None:
        raise Refused("413 REQUEST ENTITY TOO LARGE", f"the body is over {self.body_max} bytes")

    def refused(self, head: Head, status: int, size: int) -> None:
        """Called when the client is answered that the request is not served, by a body of so many bytes."""
        self.site = self.channel.site
        self.head = head
        self.method, self.uri, self.code, self.sentLength = head.method, head.target, status, size
        self.clientproto = b"HTTP/1.1" if head.http_1_1 else b"HTTP/1.0"
        self.see_client()
        self.began = self.site.reactor.seconds()
        self.tell_ended()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Called when the request is complete."""
        # The overridden method would parse query and forms, which werkzeug does when a method asks for them.
        if self.upload is None:
            self.begin_request(command, path, version)
        else:
            self.channel.deadline = FOREVER
            self.upload.finish()

    def begin_request(self, command: bytes, path: bytes, version: bytes) -> None:
        """Have the request answered."""
        self.method, self.uri, self.clientproto = command, path, version
        channel = self.channel
        self.site = channel.site
        if observers.request_ended or self.site.access is not None:
            self.began = self.site.reactor.seconds()
        self.see_client()
        channel.answering = True
        if self.upload is None:
            channel.deadline = FOREVER
            if self.content is not None:
                self.content.seek(0)
        self.site.resource.render(self)

    def see_client(self) -> None:
        """Find out whom it is from, and by which scheme."""
        if self.site.forwarded is not None:
            self.site.forwarded.see(self)

    # Out

    def answer(self, answer: Answer) -> Sending | None:
        """Send the response. Raises ``BadResponse`` and sends nothing if it can't be sent.

        Gives what is still being sent, None if all is written.
        """
        if type(answer) is Plain:
            self.code, head, closing, body = answer
            if closing and self.channel is not None:
                self.channel.persistent = False
            return self.send(head, body)
        assert isinstance(answer, Response)
        try:
            head, closing = head_of(answer)
        except BaseException:
            answer.close()
            raise
        self.code = answer.status_code
        channel = self.channel
        if channel is None:
            answer.close()  # the client has left
            self.tell_ended()
            return None
        if closing:
            channel.persistent = False
        if self.code in BODYLESS:
            answer.close()
            self.begin(head)
            self.finish()
            return None
        if self.code == 205:  # without a body, but with its length: RFC 9110, 15.3.6
            answer.close()
            return self.send(head, b"")
        pieces: Any = answer.response
        if not isinstance(pieces, (list, tuple)) or any(isinstance(each, WAITS) for each in pieces):
            return self.stream(head, answer)
        try:
            body = b"".join(answer.iter_encoded())
        finally:
            answer.close()
        return self.send(head, body)

    def send(self, head: bytes, body: bytes) -> Sending | None:
        """Send a body that is complete: all at once if it is short, else as fast as the client takes it."""
        if self.channel is None:
            self.tell_ended()
            return None
        head = b"%bContent-Length: %d\r\n" % (head, len(body))
        if self.method == b"HEAD":
            body = b""
        if len(body) > PIECE:
            return Sending(self, head, sliced(body, PIECE), len(body), None)
        self.begin(head, body)
        self.finish()
        return None

    def stream(self, head: bytes, response: Response) -> Sending | None:
        """Send a body that is made meanwhile: with its content length if the response has one, else chunked."""
        length = response.content_length
        if length is not None:
            head += b"Content-Length: %d\r\n" % length
        elif self.clientproto == b"HTTP/1.1":
            head += b"Transfer-Encoding: chunked\r\n"
        if self.method == b"HEAD":
            self.begin(head)
            response.close()
            self.finish()
            return None
        self.chunked = length is None and self.clientproto == b"HTTP/1.1"
        return Sending(self, head, body_of(response), length, response.close)

    def begin(self, head: bytes, body: bytes = b"") -> None:
        """Write the head, and a body with it, in one piece: that is quicker than Twisted's setHeader and write."""
        channel = self.channel
        site = self.site
        if site.closing or (self.upload is not None and not self.upload.complete):
            channel.persistent = False
        self.startedWriting = 1
        self.sentLength = len(body)
        connection = b"" if channel.persistent else b"Connection: close\r\n"
        channel.write(b"%bDate: %b\r\n%b\r\n%b" % (head, site.date, connection, body))

    def finish(self) -> None:
        """The response is written: go on to the next request, which may have arrived already."""
        channel = self.channel
        channel.answering = False
        channel.idle = True
        channel.wait(REQUEST_TIMEOUT)
        if self.began is not None:
            self.tell_ended()
        self.finish_writing()

    def finish_writing(self) -> None:
        channel = self.channel
        if self.chunked:
            channel.write(b"0\r\n\r\n")
        self.finished = 1
        self.channel = None
        channel.requestDone(self)
        if self.content is not None:
            self.content.close()
        for each in self.notifications:
            each.callback(None)

    def tell_ended(self) -> None:
        """Tell the observers that it is answered."""
        began, self.began = self.began, None
        if began is not None:
            seconds = self.site.reactor.seconds() - began
            method = self.method.decode("latin-1")
            observers.tell(observers.request_ended, method, self.route, self.code, seconds, self.scheme)
            if self.site.access is not None:
                self.site.access.answered(self, seconds)

    def connectionLost(self, reason: Any) -> None:
        """Twisted calls this when the client has left."""
        if self.upload is not None:
            self.upload.lost()
        if self.producer is not None:
            self.producer.stopProducing()
        if self.startedWriting:
            self.tell_ended()
        super().connectionLost(reason)
