"""Logins as bytes: each mechanism both ways."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import ConfigurationError, FrameError
from txservices.wire.login import MECHANISMS, READABLE, encode_login

RESPONSES = {
    "PLAIN": b"\0\xc3\xb8\0s3cret",
    "AMQPLAIN": b"\x05LOGINS\0\0\0\x02\xc3\xb8\x08PASSWORDS\0\0\0\x06s3cret",
    "EXTERNAL": b"",
}


class LoginTests(SynchronousTestCase):
    """A server reads what a client has written."""

    def test_written(self) -> None:
        """Each mechanism has its bytes."""
        for mechanism in MECHANISMS:
            self.assertEqual(encode_login(mechanism, "ø", "s3cret"), RESPONSES[mechanism])

    def test_read(self) -> None:
        """User and password come back from the bytes of those mechanisms that carry them."""
        self.assertEqual(list(READABLE), ["PLAIN", "AMQPLAIN"])
        for mechanism, decode in READABLE.items():
            self.assertEqual(decode(RESPONSES[mechanism]), ("ø", "s3cret"))

    def test_unknown(self) -> None:
        """Another name is the user's mistake, and the error names the key and what it accepts."""
        error = self.assertRaises(ConfigurationError, encode_login, "CRAM-MD5", "u", "p")
        self.assertEqual(str(error), "LOGIN_METHOD 'CRAM-MD5' is not one of PLAIN, AMQPLAIN, EXTERNAL")

    def test_bad_bytes(self) -> None:
        """Whatever a client sends is a user who is not known, or a syntax error."""
        for response, read in ((b"", ("", "")), (b"\0\xff", ("\ufffd", "")), (b"me\0me\0\0", ("me", "\0"))):
            self.assertEqual(READABLE["PLAIN"](response), read)
        self.assertEqual(READABLE["AMQPLAIN"](b""), ("None", "None"))
        self.assertRaises(FrameError, READABLE["AMQPLAIN"], b"\x05LOGI")
