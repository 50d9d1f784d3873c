"""``AMQP_URI`` read into addresses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import ConfigurationError
from txservices.utils.address import Address, parse_address, parse_addresses

URIS = [
    ("amqp://", Address("amqp", "localhost", 5672, "guest", "guest", "/")),
    ("pyamqp://guest:guest@localhost", Address("pyamqp", "localhost", 5672, "guest", "guest", "/")),
    ("amqp://h/", Address("amqp", "h", 5672, "guest", "guest", "/")),
    ("amqp://h//", Address("amqp", "h", 5672, "guest", "guest", "/")),
    ("amqp://h/%2F", Address("amqp", "h", 5672, "guest", "guest", "/")),
    ("amqp://h/team%2Fone", Address("amqp", "h", 5672, "guest", "guest", "team/one")),
    ("amqp://u%40x:p%40%3A%2F%25@h:77/v", Address("amqp", "h", 77, "u@x", "p@:/%", "v")),
    ("amqps://h", Address("amqps", "h", 5671, "guest", "guest", "/")),
    ("amqp://[::1]:5673/v", Address("amqp", "::1", 5673, "guest", "guest", "v")),
    ("memory://one", Address("memory", "one", 0)),
    ("memory://", Address("memory", "", 0)),
]


class AddressTests(SynchronousTestCase):
    """One URI, several, and those that can't be read."""

    def test_uris(self) -> None:
        """Each form of URI is the address that kombu reads in it."""
        for uri, address in URIS:
            self.assertEqual(parse_address(uri), address, uri)

    def test_several(self) -> None:
        """A list, or a text with semicolons, is several brokers in that order."""
        hosts = [address.host for address in parse_addresses("amqp://a; amqp://b/;")]
        self.assertEqual(hosts, ["a", "b"])
        self.assertEqual([address.host for address in parse_addresses(["amqp://c", "amqp://d"])], ["c", "d"])

    def test_bad_ones_say_how_to_write_them(self) -> None:
        """A text that can't be an address is refused with an example, and its password is never shown."""
        for uri in [
            "",
            ";",
            "localhost:5672",
            "http://h",
            "amqp://u:s3cret@h:port/",
            "amqp://u:s3cret@h/v?x=1",
            f"amqp://u:s3cret@h/{'%C3%BC' * 128}",
        ]:
            text = str(self.assertRaises(ConfigurationError, parse_addresses, uri))
            self.assertNotIn("s3cret", text)
            self.assertIn("AMQP_URI", text)

    def test_password_is_never_shown(self) -> None:
        """Neither text nor repr of an address has its password."""
        address = parse_address("amqp://u:s3cret@h/v")
        self.assertEqual(str(address), "amqp://u:********@h:5672/v")
        self.assertNotIn("s3cret", repr(address))
