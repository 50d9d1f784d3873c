"""Targets of bad bytes: each takes an input as chunks, checks how that ends, and says it in a word or two.

A wrong end is an ``AssertionError``: an exception, a hang, a reply code that AMQP has not, an answer 500. What was
logged as an error is for the test to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.faults.conversations import HEARTBEAT, client, converse
from tests.web.peer import Peer
from txservices.broker import session as session_module
from txservices.broker.server import Broker
from txservices.broker.session import Session
from txservices.exceptions import FrameError
from txservices.web.site import REQUEST_TIMEOUT, WebSite
from txservices.wire import codec, frames, tables
from txservices.wire.spec import FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, PROTOCOL_HEADER, ReplyCode

STATUS = re.compile(rb"(?:^|\n)HTTP/1\.1 (\d+) ")
STATUSES = frozenset((100, 101, 200, 204, 308, 400, 403, 404, 405, 413, 414, 426, 431, 501, 505))
Frames = list[tuple[int, int, bytes]]
CODES = frozenset(ReplyCode) - {ReplyCode.INTERNAL_ERROR}


def require(true: Any, what: str) -> None:
    """``assert``, whatever Python was told about those."""
    if not true:
        raise AssertionError(what)


def feed_reader(chunks: Iterable[bytes]) -> str:
    """``FrameReader``, and an ``Assembler`` for each channel. It keeps less than a frame and a chunk."""
    assemblers: dict[int, frames.Assembler] = {}

    def received(kind: int, channel: int, payload: bytes) -> None:
        if kind != FRAME_HEARTBEAT:
            assemblers.setdefault(channel, frames.Assembler(lambda content: None)).frame(kind, payload)

    reader = frames.FrameReader(received)
    try:
        for chunk in chunks:
            reader.feed(chunk.removeprefix(PROTOCOL_HEADER))
            kept = sum(map(len, reader.chunks)) + len(reader.rest)
            require(kept <= frames.FRAME_MAX + len(chunk), f"{kept} bytes kept")
    except FrameError as error:
        require(error.code in CODES, str(error))
        return f"error {int(error.code)}"
    return "in the middle of a frame" if reader.missing or reader.rest else "read"


def feed_codec(chunks: Iterable[bytes]) -> str:
    """Each payload as method, properties and table. What can be read can be written, and is read the same then.

    Only a number that is not finite and a name that is no UTF-8 are not written.
    """
    ends = set()
    for chunk in chunks:
        payload = chunk[frames.FRAME.size : -1]
        for read, write in ((read_method, write_method), (read_header, write_header), (read_table, write_table)):
            try:
                value = read(payload)
            except FrameError as error:
                require(error.code in CODES, str(error))
                ends.add(int(error.code))
                continue
            ends.add(200)
            try:
                written = write(value)
            except ValueError as error:
                require("is not finite" in str(error) or "surrogates not allowed" in str(error), str(error))
                continue
            again = read(written)
            require(repr(again) == repr(value), f"{value!r} came back as {again!r}")
    return f"{'some ' if len(ends) > 2 else ''}read" if 200 in ends else "unreadable"


def read_method(payload: bytes) -> Any:
    return codec.decode_method(payload)


def write_method(value: Any) -> bytes:
    return codec.encode_method(value[0], **value[1])


def read_header(payload: bytes) -> Any:
    return codec.decode_properties(payload[frames.HEADER.size :])


def write_header(value: Any) -> bytes:
    return bytes(frames.HEADER.size) + codec.encode_properties(value)


def read_table(payload: bytes) -> Any:
    return tables.decode_table(payload)[0]


def write_table(value: Any) -> bytes:
    return tables.encode_table(value)


def feed_site(site: WebSite, chunks: Iterable[bytes]) -> str:
    """HTTP, with methods that do not wait."""
    peer = Peer(site)
    try:
        return feed_peer(peer, site.reactor, chunks)
    finally:
        peer.leave()


def feed_peer(peer: Peer, clock: Any, chunks: Iterable[bytes]) -> str:
    for chunk in chunks:
        if not peer.transport.connected:
            break
        peer.channel.dataReceived(chunk)
        clock.advance(0)  # what has come may wait for its turn
    statuses = [int(status) for status in STATUS.findall(peer.transport.value())]
    require(set(statuses) <= STATUSES, f"answered {statuses}")
    end = f"{statuses[-1]}" if statuses else "nothing"
    if not peer.transport.connected:
        return f"{end}, closed"
    if 101 in statuses:
        return "WebSocket open"
    clock.advance(REQUEST_TIMEOUT + 1)
    require(not peer.transport.connected, "still there after the time for a request")
    return f"{end}, more was to come"


class Transport(StringTransport):
    """A transport that can be aborted, and writes nothing after that."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True


def said(data: bytes) -> tuple[list[tuple[int, str, dict[str, Any]]], list[tuple[int, int, bytes]]]:
    """The methods and frames that one side wrote."""
    found: Frames = []
    frames.FrameReader(lambda *frame: found.append(frame)).feed(data.removeprefix(PROTOCOL_HEADER))
    methods = [
        (channel, method.name, args)
        for kind, channel, payload in found
        if kind == FRAME_METHOD
        for method, args in [codec.decode_method(payload)]
    ]
    return methods, found


def closed_with(methods: list[tuple[int, str, dict[str, Any]]], close: str) -> str:
    """The code of the close that was sent, which has to be one of AMQP's; empty for none, or for a goodbye."""
    codes = [args["reply_code"] for _, name, args in methods if name == close and args["reply_code"] != 200]
    for code in codes:
        require(code in CODES, f"{close} with {code}")
    return str(codes[0]) if codes else ""


def feed_session(chunks: Iterable[bytes]) -> str:
    """The embedded broker's side of a connection."""
    broker = Broker(clock=Clock())
    session, transport = Session(broker), Transport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
    session.makeConnection(transport)
    for chunk in chunks:
        if transport.disconnecting:
            break
        session.dataReceived(chunk)
        broker.clock.advance(0)
    methods, _ = said(transport.value())
    code = closed_with(methods, "connection.close")
    if code:
        require(methods[-1][1].startswith("connection.close"), f"{methods[-1][1]} after the close")
        broker.clock.advance(session_module.CLOSE_TIMEOUT)
        require(transport.disconnecting, "the close was not answered, and the connection not ended")
        end = f"closed {code}"
    elif transport.disconnecting:
        end = "hung up"
    elif session.handshake is not None:
        broker.clock.advance(session_module.LOGIN_TIMEOUT)
        require(transport.disconnecting, "still there after the time for a login")
        end = "never in"
    else:
        end = "open, channels closed" if closed_with(methods, "channel.close") else "open"
    session.connectionLost(Failure(ConnectionLost()))
    require(not broker.sessions, "the session is still known")
    broker.clock.advance(0)
    require(not broker.clock.getDelayedCalls(), "something is left on the clock")
    return end


def feed_protocol(chunks: Iterable[bytes]) -> str:
    """Our client's side of a connection, in the middle of ``converse``."""
    clock = Clock()
    protocol, transport = client(clock), Transport()
    ended = Deferred.fromCoroutine(converse(protocol))
    protocol.makeConnection(transport)
    for chunk in chunks:
        if transport.disconnecting:
            break
        protocol.dataReceived(chunk)
        clock.advance(0)
    methods, _ = said(transport.value())
    code = closed_with(methods, "connection.close")
    if transport.disconnecting:
        end = f"closed {code}" if code else "closed"
    else:
        end = "waits"
        beats = protocol.heartbeat.interval
        for _ in range(6):
            clock.advance(HEARTBEAT / 2)
        require(transport.disconnecting or not beats or beats > HEARTBEAT, "silence was not seen")
    protocol.connectionLost(Failure(ConnectionLost()))
    clock.advance(0)
    require(ended.called, "the conversation hangs")
    failed: list[Failure] = []
    ended.addErrback(failed.append)
    require(not failed, failed and failed[0].getTraceback())
    require(not clock.getDelayedCalls(), "something is left on the clock")
    return end


def payload_frames(pieces: Iterable[bytes]) -> list[bytes]:
    """The frames that have something to be decoded in them."""
    return [piece for piece in pieces if piece[:1] in (bytes((FRAME_METHOD,)), bytes((FRAME_HEADER,)))]
