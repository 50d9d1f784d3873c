"""Headers of messages: a worker's context, to and from the wire, as ``messaging`` has it."""

from __future__ import annotations

from decimal import Decimal

from twisted.trial.unittest import SynchronousTestCase

from txservices.messaging import decode_from_headers, encode_to_headers


class HeaderTests(SynchronousTestCase):
    """A worker's context, to and from the wire."""

    def test_there(self) -> None:
        """Every key gets the prefix, one that has it too; values stay what they are."""
        context = {"language": "en", "user_id": 7, "nameko.z": [1], "d": {"a": Decimal("1.5")}}
        self.assertEqual(
            encode_to_headers(context),
            {"nameko.language": "en", "nameko.user_id": 7, "nameko.nameko.z": [1], "nameko.d": {"a": Decimal("1.5")}},
        )

    def test_none(self) -> None:
        """None is left out, with a warning that names the key."""
        self.assertEqual(encode_to_headers({"a": None, "b": 0}), {"nameko.b": 0})
        (warning,) = self.flushWarnings()
        self.assertEqual(warning["category"], UserWarning)
        self.assertIn("'a'", warning["message"])

    def test_back(self) -> None:
        """One prefix is taken off; strangers' headers keep their names."""
        headers = {"nameko.language": "en", "nameko.nameko.z": 1, "x-death": [{}], "foo": "bar"}
        self.assertEqual(decode_from_headers(headers), {"language": "en", "nameko.z": 1, "x-death": [{}], "foo": "bar"})

    def test_prefix(self) -> None:
        """Another prefix may stand in nameko's place, both ways."""
        self.assertEqual(encode_to_headers({"a": 1}, "p"), {"p.a": 1})
        self.assertEqual(decode_from_headers({"p.a": 1, "nameko.b": 2}, "p"), {"a": 1, "nameko.b": 2})
