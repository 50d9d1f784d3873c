"""Whose pages may open a WebSocket."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txservices.web.origins import is_loopback, is_ours

# origin, Host, where the server listens -> whether it may
ORIGINS = (
    ("http://shop.example:8000", "shop.example:8000", "0.0.0.0", True),
    ("http://shop.example", "shop.example:80", "0.0.0.0", True),
    ("http://shop.example:80", "shop.example", "0.0.0.0", True),
    ("https://shop.example", "shop.example", "0.0.0.0", True),
    ("https://shop.example", "shop.example:443", "0.0.0.0", True),
    ("https://shop.example", "shop.example:80", "0.0.0.0", False),
    ("HTTP://Shop.Example:8000", "SHOP.example:8000", "0.0.0.0", True),
    ("http://[2001:db8::1]:8000", "[2001:db8::1]:8000", "::", True),
    ("http://shop.example:8000", "shop.example:8001", "0.0.0.0", False),
    ("http://elsewhere", "shop.example", "0.0.0.0", False),
    ("http://shop.example.elsewhere", "shop.example", "0.0.0.0", False),
    ("null", "shop.example", "0.0.0.0", False),
    ("", "", "0.0.0.0", False),
    ("http://", "", "0.0.0.0", False),
    ("file://", "shop.example", "0.0.0.0", False),
    ("http://h:x", "h:x", "0.0.0.0", False),
    ("http://[::1", "[::1", "0.0.0.0", False),
    ("http://localhost:8000", "localhost:8000", "127.0.0.1", True),
    ("http://127.0.0.1:8000", "127.0.0.1:8000", "127.0.0.1", True),
    ("http://[::1]:8000", "[::1]:8000", "::1", True),
    ("http://app.localhost:8000", "app.localhost:8000", "127.0.0.1", True),
    ("http://evil.example:8000", "evil.example:8000", "127.0.0.1", False),
    ("http://evil.example:8000", "evil.example:8000", "localhost", False),
    ("http://127.0.0.1.evil.example:8000", "127.0.0.1.evil.example:8000", "127.0.0.1", False),
    ("http://evil.example:8000", "127.0.0.1:8000", "127.0.0.1", False),
)


class Origins(SynchronousTestCase):
    """``is_ours``."""

    def test_table(self) -> None:
        """A page of our own host and port, and on the loopback only by one of the loopback's names."""
        for origin, host, listens_at, may in ORIGINS:
            self.assertEqual(is_ours(origin, host, listens_at, None), may, (origin, host, listens_at))

    def test_configured(self) -> None:
        """Origins that are given are the only ones, wherever the server listens."""
        for listens_at in ("127.0.0.1", "0.0.0.0"):
            self.assertTrue(is_ours("http://a", "b", listens_at, ["http://a"]))
            self.assertTrue(is_ours("http://a", "b", listens_at, ["*"]))
            self.assertFalse(is_ours("http://b", "b", listens_at, ["http://a"]))

    def test_loopback(self) -> None:
        """Names and addresses of this machine alone."""
        for host in ("localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"):
            self.assertTrue(is_loopback(host), host)
        for host in ("", "0.0.0.0", "::", "10.0.0.1", "localhost.evil", "notlocalhost", "example"):
            self.assertFalse(is_loopback(host), host)
