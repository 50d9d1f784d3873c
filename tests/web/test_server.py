"""The address that is configured."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txservices.exceptions import ConfigurationError
from txservices.web.server import parse_address


class Addresses(SynchronousTestCase):
    """WEB_SERVER_ADDRESS."""

    def test_read(self) -> None:
        """[host:]port is read; without a host it is the loopback."""
        for address, expected in [
            ("0.0.0.0:8000", ("0.0.0.0", 8000)),
            ("localhost:0", ("localhost", 0)),
            ("8000", ("127.0.0.1", 8000)),
            (0, ("127.0.0.1", 0)),
            ("[::]:80", ("::", 80)),
        ]:
            self.assertEqual(parse_address(address), expected)

    def test_refused(self) -> None:
        """Anything else is refused with its name and value."""
        wrong = [":80", "", "here", "::1", "[::1]", "tcp:80", "http://here:80", "here:x", "a:65536", "a:1 ", "a:\u0661"]
        for address in wrong:
            error = self.assertRaises(ConfigurationError, parse_address, address)
            self.assertIn(f"WEB_SERVER_ADDRESS: {address!r} is no address", str(error))
