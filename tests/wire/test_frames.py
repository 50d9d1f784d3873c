"""Frames out of bytes, however they are split, and messages out of frames."""

from __future__ import annotations

import random
import time
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import FrameError
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, ReplyCode

DELIVER = codec.encode_method("basic.deliver", consumer_tag="t", delivery_tag=1, exchange="x", routing_key="k")
PROPERTIES = codec.encode_properties({"content_type": "application/json"})
STREAM = (
    frames.frame(FRAME_METHOD, 1, codec.encode_method("basic.qos-ok"))
    + frames.HEARTBEAT_FRAME
    + frames.content_frames(1, DELIVER, PROPERTIES, b"x" * 10_000, frame_max=4096)
    + frames.content_frames(1, DELIVER, PROPERTIES, b"")
    + frames.content_frames(1, DELIVER, PROPERTIES, b"\xce" * 9)
)


class Collected:
    """A reader whose frames are kept, and the messages that channel 1 makes of them.

    With ``short`` messages take the short way. Their number is in ``whole``.
    """

    def __init__(self, short: bool = False, body_max: int = frames.BODY_MAX) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.contents: list[frames.Content] = []
        self.whole = 0
        self.assembler = frames.Assembler(self.contents.append, body_max, skips=True)
        self.reader = frames.FrameReader(self.take, message=self.take_message if short else None)

    def take(self, kind: int, channel: int, payload: bytes) -> None:
        self.frames.append((kind, channel, payload))
        if channel == 1:
            self.assembler.frame(kind, payload)

    def take_message(self, channel: int, method: bytes, header: bytes, body: bytes) -> None:
        self.whole += 1
        if channel == 1:
            self.assembler.message(method, header, body)

    def outcome(self, *chunks: bytes) -> tuple[list[tuple[object, ...]], str]:
        """What becomes of some bytes: the messages, and the error that ends them."""
        error = ""
        try:
            for chunk in chunks:
                self.reader.feed(chunk)
        except FrameError as raised:
            error = repr(raised)
        return [(each.method.name, each.args, each.header, each.body, str(each.error)) for each in self.contents], error


class FrameReaderTests(SynchronousTestCase):
    """Bytes to frames."""

    def test_one_frame_is_these_bytes(self) -> None:
        """A frame is type, channel, size, payload and 0xCE."""
        self.assertEqual(frames.frame(FRAME_METHOD, 258, b"ab"), b"\x01\x01\x02\x00\x00\x00\x02ab\xce")

    def test_any_split_gives_the_same_frames(self) -> None:
        """Fed whole, byte by byte, or cut at random, a stream is the same frames."""
        whole = Collected()
        whole.reader.feed(STREAM)
        self.assertEqual(len(whole.contents), 4)
        single = Collected()
        for index in range(len(STREAM)):
            single.reader.feed(STREAM[index : index + 1])
        self.assertEqual(single.frames, whole.frames)
        chance = random.Random(3)
        for _ in range(300):
            split = Collected()
            start = 0
            while start < len(STREAM):
                end = start + chance.randrange(1, 4000)
                split.reader.feed(STREAM[start:end])
                start = end
            self.assertEqual(split.frames, whole.frames)

    def test_bad_frames_are_frame_errors(self) -> None:
        """A type that isn't one, an end that isn't 0xCE and a size over the limit are 501, at once."""
        for data in [
            b"\x07\x00\x01\x00\x00\x00\x00\xce",
            b"\x01\x00\x01\x00\x00\x00\x00\xcf",
            b"\x01\x00\x01\x7f\xff\xff\xff",
        ]:
            error = self.assertRaises(FrameError, frames.FrameReader(lambda *_: None).feed, data)
            self.assertEqual(error.code, ReplyCode.FRAME_ERROR)

    def test_size_at_the_limit(self) -> None:
        """A frame of exactly frame_max bytes is read, header and end included; one byte more is 501."""
        read: list[int] = []
        reader = frames.FrameReader(lambda kind, channel, payload: read.append(len(payload)), frame_max=4096)
        reader.feed(frames.frame(FRAME_BODY, 1, b"x" * 4088))
        self.assertEqual(read, [4088])
        error = self.assertRaises(FrameError, reader.feed, frames.frame(FRAME_BODY, 1, b"x" * 4089))
        self.assertEqual(error.code, ReplyCode.FRAME_ERROR)

    def test_too_large_is_dropped(self) -> None:
        """A frame over the limit that need not be an error is dropped, however it is cut, if its end is right."""
        small, large = frames.frame(FRAME_BODY, 1, b"x"), frames.frame(FRAME_HEADER, 1, b"y" * 90)
        for end in (frames.END, b"\xcf"):
            data = small + large[:-1] + end + small
            for place in range(len(data)):
                read: list[bytes] = []
                beginnings: list[bytes] = []
                reader = frames.FrameReader(
                    lambda kind, channel, payload, into=read: into.append(payload),
                    frame_max=50,
                    oversized=lambda kind, channel, beginning, error, into=beginnings: into.append(beginning),
                )
                try:
                    reader.feed(data[:place])
                    reader.feed(data[place:])
                except FrameError as error:
                    self.assertEqual(error.code, ReplyCode.FRAME_ERROR)
                    read.append(b"error")
                self.assertEqual(read, [b"x", b"x" if end == frames.END else b"error"], place)
                self.assertEqual(beginnings, [b"y" * frames.BEGINNING])

    def test_cost_grows_with_the_bytes_alone(self) -> None:
        """Many frames in one read cost as much each as few: txamqp's reader is quadratic here."""

        def each(count: int) -> float:
            data = frames.HEARTBEAT_FRAME * count
            best = float("inf")
            for _ in range(5):
                started = time.process_time()
                frames.FrameReader(lambda *_: None).feed(data)
                best = min(best, time.process_time() - started)
            return best / count

        self.assertLess(each(64_000), each(2_000) * 8)  # quadratic is 32


class ShortWayTests(SynchronousTestCase):
    """Messages whose three frames come together."""

    message = frames.content_frames(1, DELIVER, PROPERTIES, b"12345")

    def test_any_split_gives_the_same_messages(self) -> None:
        """Fed whole or cut at any place, a stream is the same messages as frame by frame."""
        expected = Collected().outcome(STREAM)
        short = Collected(short=True)
        self.assertEqual(short.outcome(STREAM), expected)
        self.assertEqual(short.whole, 1)  # the others have no body, or several frames of it
        for place in range(0, len(STREAM), 7):
            self.assertEqual(Collected(short=True).outcome(STREAM[:place], STREAM[place:]), expected, place)
        for place in range(len(self.message)):
            cut = Collected(short=True).outcome(self.message[:place], self.message[place:])
            self.assertEqual(cut, Collected().outcome(self.message), place)
        two = Collected(short=True)
        two.outcome(self.message * 2)
        self.assertEqual((two.whole, two.frames), (2, []))

    def test_wrong_bytes(self) -> None:
        """Whichever byte is wrong, the outcome is the same as frame by frame, and what comes next as well."""
        for place in range(len(self.message)):
            for value in (0, 1, 2, 3, 0x7F, 0xCE, 0xFF):
                data = self.message[:place] + bytes((value,)) + self.message[place + 1 :] + self.message
                self.assertEqual(Collected(short=True).outcome(data), Collected().outcome(data), (place, value))

    def test_out_of_turn(self) -> None:
        """Three right frames in the middle of another message are the same error as frame by frame."""
        method = frames.frame(FRAME_METHOD, 1, DELIVER)
        plain = frames.frame(FRAME_METHOD, 1, codec.encode_method("basic.qos-ok"))
        for data in (
            method + self.message,
            self.message[: len(method)] + frames.frame(FRAME_HEADER, 1, frames.HEADER.pack(60, 0, 9) + PROPERTIES),
            plain + self.message[len(method) :],  # a method that has no message
        ):
            data += self.message
            self.assertEqual(Collected(short=True).outcome(data), Collected().outcome(data))

    def test_limits(self) -> None:
        """A body over the limit is skipped, a header or a body over ``frame_max`` is an error."""
        for limit in (4, 5):
            expected = Collected(body_max=limit).outcome(self.message)
            self.assertEqual(Collected(short=True, body_max=limit).outcome(self.message), expected)
        for header, body in (
            (PROPERTIES, b"x" * 4089),
            (codec.encode_properties({"headers": {"a": "x" * 4089}}), b"1"),
        ):
            got = []
            for short in (False, True):
                collected = Collected(short)
                collected.reader.frame_max = 4096
                got.append(collected.outcome(frames.content_frames(1, DELIVER, header, body)))
            self.assertEqual(got[0], got[1])
            self.assertIn("501", got[1][1])


class AssemblerTests(SynchronousTestCase):
    """Frames to messages."""

    def test_content_is_whole(self) -> None:
        """A method with a body cut into frames is one message with its properties."""
        got = Collected()
        got.reader.feed(STREAM)
        qos, large, empty, small = got.contents
        self.assertEqual(qos.method.name, "basic.qos-ok")
        self.assertEqual(large.body, b"x" * 10_000)
        self.assertEqual(large.properties, {"content_type": "application/json"})
        self.assertEqual((empty.body, small.body), (b"", b"\xce" * 9))
        self.assertEqual(small.args["routing_key"], "k")

    def test_frames_out_of_turn(self) -> None:
        """A body where a method is due, a method where a header is, and the like, are 505."""
        header = frames.HEADER.pack(60, 0, 4) + PROPERTIES
        for sequence in [
            [(FRAME_BODY, b"x")],
            [(FRAME_HEADER, header)],
            [(FRAME_METHOD, DELIVER), (FRAME_METHOD, DELIVER)],
            [(FRAME_METHOD, DELIVER), (FRAME_HEADER, header), (FRAME_HEADER, header)],
            [(FRAME_METHOD, DELIVER), (FRAME_HEADER, frames.HEADER.pack(50, 0, 4) + PROPERTIES)],
        ]:
            assembler = frames.Assembler(lambda _: None)
            for kind, payload in sequence[:-1]:
                assembler.frame(kind, payload)
            self.assertEqual(
                self.assertRaises(FrameError, assembler.frame, *sequence[-1]).code, ReplyCode.UNEXPECTED_FRAME
            )

    def test_short_header(self) -> None:
        """A header that ends before its properties do is 502."""
        assembler = frames.Assembler(lambda _: None)
        assembler.frame(FRAME_METHOD, DELIVER)
        error = self.assertRaises(FrameError, assembler.frame, FRAME_HEADER, b"\x00" * (frames.BEGINNING - 1))
        self.assertEqual(error.code, ReplyCode.SYNTAX_ERROR)

    def test_skipped(self) -> None:
        """A body over the limit is dropped, in however many frames it comes, and the next message is taken."""
        for frame_max in (12, 20, 4096):
            got = Collected(body_max=5)
            for body in (b"1234567890", b"12345"):
                for kind, payload in (
                    (FRAME_METHOD, DELIVER),
                    (FRAME_HEADER, frames.HEADER.pack(60, 0, len(body)) + PROPERTIES),
                    *((FRAME_BODY, body[at : at + frame_max - 8]) for at in range(0, len(body), frame_max - 8)),
                ):
                    got.take(kind, 1, payload)
            self.assertEqual(
                [(each.body, each.error is None) for each in got.contents], [(b"", False), (b"12345", True)]
            )

    def test_body_in_many_small_frames(self) -> None:
        """A body that comes in frames of two bytes takes no more memory than one that comes in a few."""
        contents: list[frames.Content] = []
        assembler = frames.Assembler(contents.append)
        size = 200_000
        assembler.frame(FRAME_METHOD, DELIVER)
        assembler.frame(FRAME_HEADER, frames.HEADER.pack(60, 0, size + 5000) + PROPERTIES)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in range(size // 2):
            assembler.frame(FRAME_BODY, bytes(bytearray(b"ab")))
        self.assertLess(tracemalloc.get_traced_memory()[1], 3 * size)
        assembler.frame(FRAME_BODY, b"c" * 5000)
        self.assertEqual(contents[0].body, b"ab" * (size // 2) + b"c" * 5000)

    def test_body_limits(self) -> None:
        """A body longer than its header said, or than is taken here, is refused before it fills the memory."""
        assembler = frames.Assembler(lambda _: None, body_max=100)
        assembler.frame(FRAME_METHOD, DELIVER)
        error = self.assertRaises(
            FrameError, assembler.frame, FRAME_HEADER, frames.HEADER.pack(60, 0, 101) + PROPERTIES
        )
        self.assertEqual(error.code, ReplyCode.PRECONDITION_FAILED)
        assembler.frame(FRAME_HEADER, frames.HEADER.pack(60, 0, 4) + PROPERTIES)
        self.assertEqual(
            self.assertRaises(FrameError, assembler.frame, FRAME_BODY, b"12345").code, ReplyCode.FRAME_ERROR
        )


class SizeTests(SynchronousTestCase):
    """Bodies, cut to the size of frame agreed on."""

    def test_cut_at_the_limit(self) -> None:
        """No frame is over frame_max, header and end included, and no body has more frames than it takes."""
        for size, expected in ((0, []), (1, [9]), (4088, [4096]), (4089, [4096, 9]), (8177, [4096, 4096, 9])):
            sizes: list[int] = []
            reader = frames.FrameReader(
                lambda kind, channel, payload, into=sizes: into.append(len(payload) + 8) if kind == FRAME_BODY else None
            )
            reader.feed(frames.content_frames(1, DELIVER, PROPERTIES, b"x" * size, frame_max=4096))
            self.assertEqual(sizes, expected, size)
