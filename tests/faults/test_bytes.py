"""Point 10 of the faults: bad bytes, made of good conversations, into everything that reads AMQP.

    python -m twisted.trial tests.faults.test_bytes                  # some; FAULTS_FULL=1 for 100,000 of each
    FAULTS_SEED=1234 python -m twisted.trial tests.faults.test_bytes # that input

Each input is made of its number alone and ends in normal processing or in a close with the right code; nothing raises,
nothing hangs, nothing is logged as an error, and the memory does not grow.
"""

from __future__ import annotations

import os
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from twisted.trial.unittest import TestCase

from tests.faults.conversations import BIG, BODY_MAX, REQUESTS, SMALL, Page, recorded_alone, recorded_services
from tests.faults.feeding import feed_codec, feed_protocol, feed_reader, feed_session, feed_site, payload_frames
from tests.faults.mutations import Mutations, mended
from tests.faults.scene import FULL
from tests.web.peer import WebTestCase

INPUTS = 100_000 if FULL else 2000
SLOWEST = 2.0  # seconds of the processor for one input: thousands of times what one takes
GROWTH = 100  # MiB that all inputs of a test may add to the most that the process ever had
RARELY = 30  # one conversation in so many is a big one


class BytesCase(TestCase):
    """Feeds inputs by number."""

    timeout = 3600 if FULL else 120

    def feed(
        self, feed: Callable[[Iterable[bytes]], str], make: Callable[[int], Iterable[bytes]], *expected: str
    ) -> None:
        """Feed them all; the ends that are expected come about."""
        given = os.environ.get("FAULTS_SEED")
        ends: Counter[str] = Counter()
        peak = most_memory()
        began = time.monotonic()
        for seed in [int(given)] if given else range(INPUTS):
            chunks = list(make(seed))
            start = time.process_time()
            try:
                ends[feed(chunks)] += 1
                self.assertLess(time.process_time() - start, SLOWEST)
                self.assertEqual(self.flushLoggedErrors(), [])
            except Exception as error:  # ids in it are new in each run: so all of it is shown
                raise AssertionError(f"FAULTS_SEED={seed}: {chunks}: {traceback.format_exc()}") from error
        grown = most_memory() - peak
        print(f"\n{self.id()}: {ends.total()} in {time.monotonic() - began:.0f} s, +{grown} MiB: {dict(ends)}")
        self.assertLess(grown, GROWTH)
        if not given:
            self.assertEqual(set(expected) - ends.keys(), set())


def most_memory() -> int:
    """The most that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Amqp(BytesCase):
    """The bytes of clients and brokers, changed."""

    def setUp(self) -> None:
        up, down = recorded_alone(self, SMALL)
        big_up, big_down = recorded_alone(self, BIG)
        self.downs = [down] * RARELY + [big_down]
        self.ups = [*[up, *recorded_services(self)] * RARELY, big_up]

    def test_reader(self) -> None:
        """Into the frame reader and the assembler: frames, or the code of what is wrong."""
        self.feed(feed_reader, Mutations(self.ups + self.downs, mended).make, "read", "error 501", "error 502")

    def test_codec(self) -> None:
        """Into the codec and the tables, each frame by itself."""
        payloads = [payload_frames(conversation) for conversation in self.ups + self.downs]
        mutations = Mutations([[piece] for pieces in payloads for piece in pieces if len(piece) < 1000], mended)
        self.feed(feed_codec, mutations.make, "read", "some read", "unreadable")

    def test_session(self) -> None:
        """Into the embedded broker."""
        make = Mutations(self.ups, mended).make
        self.feed(feed_session, make, "open", "never in", "closed 501", "closed 502", "closed 503", "closed 505")

    def test_protocol(self) -> None:
        """Into our client, which is in the middle of the conversation that the bytes belong to."""
        make = Mutations(self.downs, mended).make
        self.feed(feed_protocol, make, "closed", "waits", "closed 501", "closed 502", "closed 503", "closed 505")


class Http(BytesCase, WebTestCase):
    """The bytes of browsers and programs, changed."""

    async def test_site(self) -> None:
        """Into the HTTP face, and WebSockets on it: a client's fault, or a client that is given up in time."""
        await self.serve(Page, WEB_BODY_MAX=BODY_MAX)
        make = Mutations(REQUESTS).make
        ends = ("200, more was to come", "400, more was to come", "413, more was to come", "WebSocket open")
        self.feed(partial(feed_site, self.site), make, *ends)
