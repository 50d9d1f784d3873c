"""Bytes to frames to whole messages, and back. Pure: no Twisted here.

A frame's way in: ``FrameReader.feed(bytes)`` calls ``receive(kind, channel, payload)`` for each whole frame; the
channel's ``Assembler.frame(kind, payload)`` gives a ``Content`` when a method and all that belongs to it are there. The
way out is ``frame`` and ``content_frames``. Client and embedded broker share all of it. A message whose three frames
came together may take the short way, by ``message``, which saves a step for each of them.

A chunk that ends in the middle of a frame is kept and joined with the next one, each byte copied a bounded number of
times: txamqp joins and cuts its whole buffer once a frame, which is quadratic.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from struct import Struct
from typing import Any

from txservices.exceptions import FrameError
from txservices.wire.codec import decode_method, decode_properties
from txservices.wire.spec import (
    BASIC_CLASS,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    Method,
    ReplyCode,
)

FRAME_MAX = 131_072  # bytes of a whole frame; RabbitMQ's own default
BODY_MAX = 134_217_728  # bytes of a message's body taken in: RabbitMQ's default limit, 128 MiB

FRAME = Struct(">BHI")  # type, channel, size of the payload
HEADER = Struct(">HHQ")  # class, weight, size of the body; flags and values follow
FRAME_AND_HEADER = Struct(">BHIHHQ")
KINDS = frozenset((FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT))
END = b"\xce"
BEGINNING = HEADER.size + 2  # bytes of a header up to its properties


def header_max(frame_max: int) -> int:
    """How many bytes of properties one frame takes: flags and values, which AMQP can't split."""
    return frame_max - FRAME_OVERHEAD - HEADER.size


HEARTBEAT_FRAME = FRAME.pack(FRAME_HEARTBEAT, 0, 0) + END


# Called with type, channel, beginning of the payload, and the error of a frame over frame_max; it may raise the error.
Oversized = Callable[[int, int, bytes, FrameError], None]
# Called with channel, method, flags and values of the properties, and body.
Whole = Callable[[int, bytes, bytes, bytes], None]


def too_large(kind: int, channel: int, beginning: bytes, error: FrameError) -> None:
    raise error


class FrameReader:
    """Cuts a stream of bytes into frames. After a ``FrameError`` it must not be fed again.

    ``oversized`` is called with the beginning of a frame over ``frame_max``. If it does not raise the error, the
    rest of the frame is dropped as it comes. ``message``, where it is given, is called in place of ``receive`` if three
    frames are a whole message: with the channel, the method, the properties and the body.
    """

    __slots__ = ("chunks", "dropping", "frame_max", "message", "missing", "oversized", "receive", "rest")

    def __init__(
        self,
        receive: Callable[[int, int, bytes], None],
        frame_max: int = FRAME_MAX,
        oversized: Oversized = too_large,
        message: Whole | None = None,
    ) -> None:
        self.receive = receive
        self.message = message
        self.frame_max = frame_max
        self.oversized = oversized
        self.dropping = 0  # bytes still to come of a frame that is too large, with its end
        self.rest = b""  # the beginning of a frame whose header is not complete
        self.chunks: list[bytes] = []  # the beginning of a frame whose size is known
        self.missing = 0  # bytes still to come before `chunks` are worth joining

    def feed(self, data: bytes) -> None:
        """Take some bytes; ``receive`` is called for each frame that is complete with them."""
        if self.missing:
            self.chunks.append(data)
            self.missing -= len(data)
            if self.missing > 0:
                return
            data = b"".join(self.chunks)
            self.chunks = []
            self.missing = 0
        elif self.rest:
            data = self.rest + data
        self.rest = b""
        unpack = FRAME.unpack_from
        receive = self.receive
        message = self.message
        position = 0
        length = len(data)
        if self.dropping:
            position = self.drop(data, 0)
        while length - position >= 7:
            kind, channel, size = unpack(data, position)
            if kind not in KINDS:
                raise FrameError(ReplyCode.FRAME_ERROR, f"no frame is of type {kind}")
            if size > self.frame_max - FRAME_OVERHEAD:
                error = FrameError(
                    ReplyCode.FRAME_ERROR,
                    f"a frame of {size} bytes is over the {self.frame_max} agreed on",
                )
                beginning = data[position + 7 : position + 7 + BEGINNING]
                if len(beginning) < BEGINNING and self.oversized is not too_large:
                    break
                self.oversized(kind, channel, beginning, error)
                self.dropping = size + 1
                position = self.drop(data, position + 7)
                continue
            start = position + 7
            end = start + size
            if end >= length:
                self.missing = end + 1 - length
                self.chunks.append(data[position:])
                return
            if data[end] != FRAME_END:
                raise FrameError(ReplyCode.FRAME_ERROR, f"a frame ends in {data[end]:#04x} and not in 0xce")
            position = end + 1
            if kind == FRAME_METHOD and message is not None and length - position > FRAME_AND_HEADER.size:
                behind = self.pass_message(data, start, end, channel, message)
                if behind:
                    position = behind
                    continue
            receive(kind, channel, data[start:end])
        if position < length:
            self.rest = data[position:]

    def pass_message(self, data: bytes, start: int, end: int, channel: int, message: Whole) -> int:
        """Pass on the message whose method is at ``start`` and ends at ``end``. Gives where the next frame begins.

        It is 0, and nothing is passed on, unless a header and one body of the same channel follow whole and right.
        """
        kind, same, header_size, class_id, weight, size = FRAME_AND_HEADER.unpack_from(data, end + 1)
        header_end = end + 8 + header_size
        body = header_end + 8
        body_end: int = body + size
        if (
            kind == FRAME_HEADER
            and body_end < len(data)
            and data[body_end] == FRAME_END == data[header_end]
            and FRAME.unpack_from(data, header_end + 1) == (FRAME_BODY, channel, size)
            and same == channel
            and class_id == BASIC_CLASS
            and not weight
            and BEGINNING <= header_size <= self.frame_max - FRAME_OVERHEAD >= size
        ):
            message(channel, data[start:end], data[end + 8 + HEADER.size : header_end], data[body:body_end])
            return body_end + 1
        return 0

    def drop(self, data: bytes, position: int) -> int:
        """Drop the part of a too large frame that has come. Gives where the next frame begins, if it does."""
        end = min(position + self.dropping, len(data))
        self.dropping -= end - position
        if not self.dropping and data[end - 1] != FRAME_END:
            raise FrameError(ReplyCode.FRAME_ERROR, f"a frame ends in {data[end - 1]:#04x} and not in 0xce")
        return end


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame, ready for the wire."""
    return b"".join((FRAME.pack(kind, channel, len(payload)), payload, END))


def content_frames(channel: int, method: bytes, properties: bytes, body: bytes, frame_max: int = FRAME_MAX) -> bytes:
    """A method that carries a message: its frame, the header's and the body's, joined.

    ``method`` is the payload of the method frame; ``properties`` are flags and values, as ``codec.encode_properties``
    gives them.
    """
    size = len(body)
    pack = FRAME.pack
    if 0 < size <= frame_max - FRAME_OVERHEAD:  # joined in one go, with no call for each frame
        return b"".join(
            (
                pack(FRAME_METHOD, channel, len(method)),
                method,
                END,
                FRAME_AND_HEADER.pack(FRAME_HEADER, channel, HEADER.size + len(properties), BASIC_CLASS, 0, size),
                properties,
                END,
                pack(FRAME_BODY, channel, size),
                body,
                END,
            )
        )
    parts = [
        frame(FRAME_METHOD, channel, method),
        frame(FRAME_HEADER, channel, HEADER.pack(BASIC_CLASS, 0, size) + properties),
    ]
    chunk = frame_max - FRAME_OVERHEAD
    for start in range(0, size, chunk):
        parts.append(frame(FRAME_BODY, channel, body[start : start + chunk]))
    return b"".join(parts)


class Content:
    """A method that came in whole: with its header and body, if it is one that has them.

    ``header`` is the header's flags and values as they came; ``properties`` reads them when asked. ``error`` says why a
    message was too large to be taken; then header and body are empty.
    """

    __slots__ = ("args", "body", "error", "header", "method")

    def __init__(self, method: Method, args: dict[str, Any], header: bytes = b"", body: bytes = b"") -> None:
        self.method = method
        self.args = args
        self.header = header
        self.body = body
        self.error: FrameError | None = None

    @property
    def properties(self) -> dict[str, Any]:
        """The message's properties; raises ``FrameError`` where its bytes can't be read."""
        if self.error is not None:
            raise self.error
        return decode_properties(self.header)


class Assembler:
    """Frames of one channel to whole methods: method, header, bodies, each step naming the next one.

    ``frame(kind, payload)`` takes the channel's next frame. It is the step that is due itself, which saves a call for
    each frame. ``receive`` is called with each ``Content`` that is complete. A frame out of turn is a ``FrameError``
    (505). So is a body over ``body_max`` (406), unless ``skips`` is true: then it is dropped as it comes, and the
    ``Content`` has the error.
    """

    __slots__ = ("body", "body_max", "content", "first", "frame", "missing", "receive", "skips")

    def __init__(self, receive: Callable[[Content], None], body_max: int = BODY_MAX, skips: bool = False) -> None:
        self.receive = receive
        self.body_max = body_max
        self.skips = skips
        self.frame: Callable[[int, bytes], None] = self.receive_method
        self.first = self.frame
        self.body: BytesIO | None = None  # what has come of a body in several frames
        self.missing = 0  # bytes of the body still to come

    def receive_method(self, kind: int, payload: bytes) -> None:
        if kind != FRAME_METHOD:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, f"a frame of type {kind} where a method was due")
        method, args = decode_method(payload)
        content = Content(method, args)
        if method.content:
            self.content = content
            self.frame = self.receive_header
        else:
            self.receive(content)

    def receive_header(self, kind: int, payload: bytes) -> None:
        if kind != FRAME_HEADER:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, f"a frame of type {kind} where a header was due")
        if len(payload) < BEGINNING:
            raise FrameError(ReplyCode.SYNTAX_ERROR, f"a header frame of {len(payload)} bytes")
        class_id, weight, size = HEADER.unpack_from(payload)
        content = self.content
        if class_id != content.method.class_id or weight != 0:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, f"a header of class {class_id}, weight {weight}")
        if size > self.body_max:
            content.error = FrameError(
                ReplyCode.PRECONDITION_FAILED,
                f"a body of {size} bytes is over the {self.body_max} taken here",
            )
            if not self.skips:
                raise content.error
        self.missing = size
        if content.error is None:
            content.header = payload[HEADER.size :]
            self.frame = self.receive_body
        else:
            self.frame = self.skip_body
        if not size:
            self.finish()

    def message(self, payload: bytes, header: bytes, body: bytes) -> None:
        """Take the three frames of a message at once, as a ``FrameReader`` passes them on."""
        if self.frame is self.first and len(body) <= self.body_max:
            method, args = decode_method(payload)
            if method.content:
                self.receive(Content(method, args, header, body))
                return
        self.frame(FRAME_METHOD, payload)
        self.frame(FRAME_HEADER, HEADER.pack(BASIC_CLASS, 0, len(body)) + header)
        self.frame(FRAME_BODY, body)

    def large_header(self, beginning: bytes, error: FrameError) -> None:
        """Take the beginning of a header that is too large to be taken whole: its message is skipped."""
        if self.frame == self.receive_header:
            self.content.error = error
        self.frame(FRAME_HEADER, beginning)

    def skip_body(self, kind: int, payload: bytes) -> None:
        if kind != FRAME_BODY:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, f"a frame of type {kind} where a body was due")
        self.missing -= len(payload)
        if self.missing < 0:
            raise FrameError(ReplyCode.FRAME_ERROR, f"{-self.missing} bytes more of body than the header said")
        if self.missing == 0:
            self.finish()

    def receive_body(self, kind: int, payload: bytes) -> None:
        if kind != FRAME_BODY:
            raise FrameError(ReplyCode.UNEXPECTED_FRAME, f"a frame of type {kind} where a body was due")
        self.missing -= len(payload)
        if self.missing < 0:
            raise FrameError(ReplyCode.FRAME_ERROR, f"{-self.missing} bytes more of body than the header said")
        if self.missing == 0 and self.body is None:
            self.content.body = payload
            self.finish()
            return
        self.keep(payload)
        if self.missing == 0:
            self.content.body = self.join()
            self.finish()

    def keep(self, payload: bytes) -> None:
        """Keep a part of a body until the rest has come."""
        # Not a list that is joined at the end: to copy 128 MiB at once takes 70 ms, and many small frames, which are
        # legal, would take more memory than they bring.
        if self.body is None:
            self.body = BytesIO()
        self.body.write(payload)

    def join(self) -> bytes:
        """Give the body that was kept, and forget it."""
        body, self.body = self.body, None
        return b"" if body is None else body.getvalue()

    def finish(self) -> None:
        content = self.content
        del self.content
        self.frame = self.first
        self.receive(content)
