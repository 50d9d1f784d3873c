"""Compressed messages of WebSockets, with clients of the ``websockets`` package, and subprotocols."""

from __future__ import annotations

import json
import zlib
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Offer
from wsproto.frame_protocol import Opcode, RsvBits

from tests.web.chat import SocketsCase, succeeded
from tests.web.test_big_messages import CONTINUATION, PING, TEXT, frame
from txservices.web import deflate
from txservices.web.deflate import Deflate

RSV1 = 0x40
TAKEOVER = "client_no_context_takeover; server_no_context_takeover"
# what a client offers -> what it is answered
OFFERS = (
    ("", TAKEOVER),
    ("client_max_window_bits", TAKEOVER),
    ("client_max_window_bits=8", TAKEOVER),
    ("client_max_window_bits=15; server_max_window_bits=15", TAKEOVER + "; server_max_window_bits=15"),
    ('server_max_window_bits = "9"', TAKEOVER + "; server_max_window_bits=9"),
    ("client_no_context_takeover; server_no_context_takeover", TAKEOVER),
    ("server_max_window_bits=8", None),  # zlib has no such window
    ("server_max_window_bits=16", None),
    ("server_max_window_bits", None),
    ("client_max_window_bits=7", None),
    ("client_max_window_bits=", None),
    ("client_max_window_bits=x", None),
    ("client_max_window_bits=\u0661\u0662", None),
    ("server_no_context_takeover=1", None),
    ("client_max_window_bits; client_max_window_bits", None),
    ("something", None),
    (";", None),
)


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def echo(value: Any) -> bytes:
    return json.dumps({"method": "echo", "data": {"value": value}}).encode()


class Offers(SynchronousTestCase):
    """The handshake."""

    def test_table(self) -> None:
        """An offer is agreed to if we can keep to it, without a window kept by either side; else it is passed over."""
        for parameters, expected in OFFERS:
            offer = f"permessage-deflate; {parameters}" if parameters else "permessage-deflate"
            self.assertEqual(Deflate(1000).accept(offer), expected, parameters)

    def test_several(self) -> None:
        """The first offer that we can keep to counts."""
        extension = Deflate(1000)
        self.assertIsNone(extension.accept("permessage-deflate; server_max_window_bits=8"))
        self.assertEqual(extension.accept("permessage-deflate"), TAKEOVER)
        self.assertIsNone(extension.accept("permessage-deflate; server_max_window_bits=10"))


class Compressed(SocketsCase):
    """Messages both ways."""

    async def connect(self, **limits: Any) -> Any:
        await self.start(**limits)
        client = self.client(extensions=[Offer()])
        client.messages()
        return client

    async def test_sizes(self) -> None:
        """Messages of all sizes arrive, however well they can be compressed and in however many frames they come."""
        for bits in (None, 9, 15):
            await self.start()
            client = self.client(extensions=[Offer(server_max_window_bits=bits, client_max_window_bits=bits)])
            client.messages()
            for size in (0, 1, 126, deflate.DEFLATE_MIN, 8192, 80_000):
                for value in ("x" * size, Random(size).randbytes(size // 2).hex(), "ü" * (size // 2)):
                    self.assertTrue(client.call("echo", value=value) == [succeeded(value)], size)

    async def test_in_frames(self) -> None:
        """A compressed message may come in frames, with a ping between them, and so may one that is not."""
        client = await self.connect()
        for data, rsv in ((deflated(echo("x" * 500)), RSV1), (echo("x" * 500), 0)):
            pieces = [data[at : at + 5] for at in range(0, len(data), 5)]
            opcodes = [TEXT | rsv, *[CONTINUATION] * (len(pieces) - 1)]
            for opcode, piece in zip(opcodes[:-1], pieces[:-1], strict=True):
                client.protocol.receive_data(client.peer.send(frame(opcode, piece, False) + frame(PING, b"?")))
            client.protocol.receive_data(client.peer.send(frame(opcodes[-1], pieces[-1])))
            self.assertEqual(client.messages(), [succeeded("x" * 500)])

    async def test_short_ones_are_not(self) -> None:
        """A short message goes out as it is, and a longer one is shorter on the wire."""
        client = await self.connect()
        for size, compressed in ((10, False), (50_000, True)):
            client.protocol.send_text(echo("x" * size))
            sent = client.peer.send(b"".join(client.protocol.data_to_send()))
            self.assertEqual(len(sent) < size, compressed)
            self.assertEqual(bool(sent[0] & RSV1), compressed)

    def test_long_ones_are_not(self) -> None:
        """Nor is a long message compressed: that would hold the reactor."""
        extension, bits = Deflate(1000), RsvBits(False, False, False)
        for size, compressed in ((deflate.DEFLATE_MAX, True), (deflate.DEFLATE_MAX + 1, False)):
            used, data = extension.frame_outbound(None, Opcode.TEXT, bits, bytes(size), True)
            self.assertEqual((used.rsv1, len(data) < size), (compressed, compressed))

    async def test_bombs(self) -> None:
        """A message that would grow beyond ``WEB_BODY_MAX`` closes the socket; it is inflated no further."""
        bomb = deflated(bytes(50_000_000))
        for data in (bomb, bomb[: len(bomb) // 2]):
            for fin in (True, False):
                client = await self.connect(WEB_BODY_MAX=10_000)
                client.protocol.receive_data(client.peer.send(frame(TEXT | RSV1, data, fin)))
                client.messages()
                self.assertEqual(client.protocol.close_rcvd.code, 1009)

    async def test_just_fits(self) -> None:
        """One of just ``WEB_BODY_MAX`` bytes is read, one with a byte more is not."""
        for more, code in ((0, None), (1, 1009)):
            client = await self.connect(WEB_BODY_MAX=10_000)
            client.protocol.receive_data(client.peer.send(frame(TEXT | RSV1, deflated(b" " * (10_000 + more)))))
            client.messages()
            self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, code)

    async def test_wrong(self) -> None:
        """What can't be inflated, and the bit for compression where it may not be, close the socket with the reason."""
        wrong = (
            (frame(TEXT | RSV1, b"\xff\xff\xff\xff"), 1007),
            (frame(TEXT | RSV1, deflated(b"\xff")), 1007),
            (frame(PING | RSV1, b""), 1002),
            (frame(TEXT | RSV1, b"", False) + frame(CONTINUATION | RSV1, b""), 1002),
            (frame(TEXT | 0x20, b""), 1002),
        )
        for data, code in wrong:
            client = await self.connect()
            client.protocol.receive_data(client.peer.send(data))
            self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, code, data)
        await self.start()
        client = self.client()  # it has offered nothing
        client.protocol.receive_data(client.peer.send(frame(TEXT | RSV1, deflated(echo(1)))))
        self.assertEqual(client.protocol.close_rcvd and client.protocol.close_rcvd.code, 1002)


class Subprotocols(SocketsCase):
    """WEBSOCKET_SUBPROTOCOLS."""

    async def test_table(self) -> None:
        """Of what a client asks for, the first that the service names is agreed to; else there is none."""
        for ours, asked, agreed in (
            (["chat.v2", "chat"], ["chat", "chat.v2"], "chat.v2"),
            ("chat", ["x", "chat"], "chat"),
            (["chat"], ["x"], None),
            (["chat"], None, None),
            (None, ["chat"], None),
        ):
            await self.start(**({} if ours is None else {"WEBSOCKET_SUBPROTOCOLS": ours}))
            client = self.client(subprotocols=asked)
            self.assertEqual(client.response.status_code, 101)
            self.assertEqual(client.protocol.subprotocol, agreed)
