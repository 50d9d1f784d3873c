"""Point 10 of the faults, the other half: what hypothesis thinks of, into everything that reads bytes.

    python -m twisted.trial tests.faults.test_any_bytes               # some; FAULTS_FULL=1 for 10,000 of each
    FAULTS_SEED=7 python -m twisted.trial tests.faults.test_any_bytes # that round of each

``test_bytes`` spoils what is good; here each frame, method, table and request is whole, and nothing about it makes
sense: methods of the other side, on any channel, in any order, with any arguments. A failure shows the smallest input.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.faults.conversations import BODY_MAX, REQUESTS, SMALL, Page, masked, recorded_alone
from tests.faults.feeding import feed_codec, feed_protocol, feed_reader, feed_session, feed_site
from tests.faults.growth import memory
from tests.faults.scene import FULL
from tests.web.peer import WebTestCase
from txservices.amqp.channel import UNASKED_ON_CHANNEL, UNASKED_ON_CONNECTION
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD, METHODS, PROPERTIES, Method
from txservices.wire.tables import DOUBLE

ROUND = 200  # inputs; hypothesis remembers all of a run
ROUNDS = 50 if FULL else 1
GROWTH = 150  # MiB

EPOCH = datetime(1970, 1, 1)

# Our codec writes no number that is not finite, and others may: these stand for them until they are bytes.
NOT_FINITE = {1.5e300: float("nan"), 2.5e300: float("inf"), 3.5e300: float("-inf")}
floats = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(list(NOT_FINITE)))

names = st.one_of(st.sampled_from(("", "q", "x", "t", "#", "amq.topic", "a.*.b")), st.text(max_size=60))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 63) - 1), floats, st.text(max_size=20),
        st.binary(max_size=20), st.datetimes(EPOCH, timezones=st.just(timezone.utc)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip
argument_names = st.sampled_from(
    (
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-overflow",
        "x-dead-letter-exchange",
        "x-match",
        "x-death",
        "CC",
        "a",
    )
)
arguments = st.one_of(
    st.dictionaries(argument_names, values, max_size=3), st.dictionaries(st.text(max_size=10), values, max_size=3)
)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "octet": st.integers(0, 255),
    "short": st.integers(0, 65_535),
    "long": st.integers(0, (1 << 32) - 1),
    "longlong": st.one_of(st.integers(0, 5), st.integers(0, (1 << 64) - 1)),
    "shortstr": names,
    "octets": names,
    "text": names,
    "longstr": st.binary(max_size=60),
    "table": arguments,
    "timestamp": st.integers(0, (1 << 64) - 1),
    "bit": st.booleans(),
}
channels = st.sampled_from((1,) * 12 + (0, 0, 2, 65_535))
properties = st.fixed_dictionaries({}, optional={name: KINDS[kind] for name, kind in PROPERTIES})


def payloads_of(method: Method) -> st.SearchStrategy[bytes]:
    """A method's payloads, whatever they say."""
    fields = st.fixed_dictionaries({name: KINDS[kind] for name, kind in method.fields})
    return fields.map(partial(encoded, method))


def encoded(method: Method, fields: dict[str, Any]) -> bytes:
    return with_any_floats(codec.encode_method(method, **fields))


def content(channel: int, payload: bytes, properties: dict[str, Any], body: bytes, frame_max: int) -> bytes:
    header = with_any_floats(codec.encode_properties(properties))
    return frames.content_frames(channel, payload, header, body, frame_max)


def with_any_floats(data: bytes) -> bytes:
    for finite, number in NOT_FINITE.items():
        data = data.replace(DOUBLE.pack(finite), DOUBLE.pack(number))
    return data


def methods(*beginnings: str, content: bool = False) -> st.SearchStrategy[bytes]:
    """The payloads of all methods whose names begin so; with none given, of all."""
    return st.one_of(
        [
            payloads_of(method)
            for name, method in METHODS.items()
            if method.content == content and name.startswith(beginnings or "") and (not beginnings or name[-2:] != "ok")
        ]
    )


PLAIN = methods()
CONTENT = methods(content=True)
ASKED = methods("queue.", "exchange.", "confirm.", "basic.")  # what a client may say
UNASKED = (*UNASKED_ON_CHANNEL, *UNASKED_ON_CONNECTION)
TOLD = st.one_of([payloads_of(method) for name, method in METHODS.items() if name in UNASKED or name.endswith("ok")])


def conversations(likely: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Some frames, half of them of the likely kind."""
    odd = st.one_of(
        st.builds(frames.frame, st.just(FRAME_METHOD), channels, PLAIN),
        st.builds(frames.frame, st.sampled_from((1, 2, 3, 8, 9)), channels, st.binary(max_size=40)),
        st.binary(max_size=20),
    )
    messages = st.builds(content, channels, CONTENT, properties, st.binary(max_size=40), st.sampled_from((20, 4096)))
    said = st.builds(frames.frame, st.just(FRAME_METHOD), channels, likely)
    kinds = (said, said, said, messages, messages, odd)
    return st.lists(st.integers(0, len(kinds) - 1).flatmap(lambda kind: kinds[kind]), max_size=6)


codecs = st.one_of(PLAIN, st.builds(codec.encode_properties, properties).map(with_any_floats), st.binary(max_size=60))

# HTTP: mostly what it might be
tokens = st.sampled_from((b"GET",) * 4 + (b"POST",) * 4 + (b"PUT", b"HEAD", b"OPTIONS", b"PRI", b"\xff", b""))
targets = st.one_of(
    st.sampled_from((b"/", b"/length", b"/form", b"/slash", b"/ws", b"/number/1", b"*", b"http://h/")),
    st.text(max_size=10).map(lambda text: b"/number/1?" + quote(text).encode()),
    st.binary(max_size=20).map(b"/number/".__add__),
)
versions = st.sampled_from((b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""))
header_names = st.sampled_from(
    (
        b"Host", b"Content-Length", b"Transfer-Encoding", b"Content-Type", b"Connection", b"Upgrade", b"Expect",
        b"Cookie", b"Origin", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Content-Encoding", b"Range", b"",
        b"a b",
    )
)  # fmt: skip
header_values = st.one_of(
    st.sampled_from(
        (
            b"h", b"h:99999", b"5", b"-1", b"chunked", b"gzip, chunked", b"Upgrade", b"close", b"websocket", b"13",
            b"a=b; c", b"multipart/form-data; boundary=b", b"application/x-www-form-urlencoded", b"100-continue",
            b"http://h",
        )
    ),
    st.text(max_size=10).map(str.encode),
)  # fmt: skip
fields = st.text("abcXYZ-09", min_size=1, max_size=12).map(str.encode)
likely_headers = st.one_of(header_names, fields)
headers = st.lists(st.tuples(likely_headers, header_values).map(b": ".join), max_size=6)
bodies = st.one_of(
    st.binary(max_size=60), st.sampled_from((b"5\r\nhello\r\n0\r\n\r\n", b"--b\r\n\r\nx\r\n--b--", b"a=1&%ff"))
)


def request(method: bytes, target: bytes, version: bytes, headers: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([b" ".join((method, target, version)), *headers, b"", body])


requests = st.lists(st.builds(request, tokens, targets, versions, headers, bodies), min_size=1, max_size=3)


socket_frames = st.one_of(
    st.builds(masked, st.sampled_from((0, 1, 1, 1, 2, 8, 9, 10, 3, 15)), st.binary(max_size=130), st.booleans()),
    st.builds(masked, st.just(1), values.map(lambda value: json.dumps(value, default=str).encode())),
    st.binary(max_size=20),
)


class AnyBytes(WebTestCase):
    """Rounds of inputs, each with its seed."""

    timeout = 3600 if FULL else 120

    def feed(self, feed: Callable[[Iterable[bytes]], str], inputs: st.SearchStrategy[list[bytes]]) -> None:
        only = os.environ.get("FAULTS_SEED")
        ends: Counter[str] = Counter()
        before, began = memory(os.getpid()), time.process_time()

        def check(chunks: list[bytes]) -> None:
            ends[feed(chunks)] += 1
            self.assertEqual(self.flushLoggedErrors(), [])

        rules = settings(
            max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
        )
        for number in [int(only)] if only else range(ROUNDS):
            try:
                seed(number)(rules(given(inputs)(check)))()
            except Exception as error:
                raise AssertionError(f"FAULTS_SEED={number}: {error!r} {getattr(error, '__notes__', '')}") from error
        grown = memory(os.getpid()) - before
        seconds = time.process_time() - began
        print(f"\n{self.id()}: {ends.total()} in {seconds:.1f} s of the processor, {grown:+.0f} MiB: {dict(ends)}")
        self.assertLess(grown, GROWTH)

    def test_reader(self) -> None:
        """Into the frame reader and the assembler."""
        self.feed(feed_reader, conversations(PLAIN))

    def test_codec(self) -> None:
        """Into the codec and the tables."""
        self.feed(feed_codec, st.lists(codecs.map(partial(frames.frame, FRAME_METHOD, 1)), min_size=1, max_size=3))

    def test_session(self) -> None:
        """Into the embedded broker, after a good handshake."""
        up, _ = recorded_alone(self, SMALL)
        self.feed(feed_session, conversations(ASKED).map(partial(after, up[:5])))

    def test_protocol(self) -> None:
        """Into our client, after a good handshake."""
        _, down = recorded_alone(self, SMALL)
        self.feed(feed_protocol, conversations(TOLD).map(partial(after, down[:4])))

    async def test_site(self) -> None:
        """Into the HTTP face."""
        await self.serve(Page, WEB_BODY_MAX=BODY_MAX)
        self.feed(partial(feed_site, self.site), requests)

    async def test_socket(self) -> None:
        """Into an open WebSocket."""
        await self.serve(Page, WEB_BODY_MAX=BODY_MAX)
        handshake = REQUESTS[-1][:9]
        self.feed(partial(feed_site, self.site), st.lists(socket_frames, max_size=6).map(partial(after, handshake)))


def after(beginning: list[bytes], chunks: list[bytes]) -> list[bytes]:
    return [*beginning, *chunks]
