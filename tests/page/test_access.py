"""Who may read the page's data, and who may change something."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from werkzeug.datastructures import Headers

from txservices.page.access import Access, Use

HERE, OTHER = "127.0.0.1", "192.0.2.7"  # where clients are
LOCAL = {"Host": "127.0.0.1:8008"}
RIGHT, WRONG = {"Authorization": "Bearer secret"}, {"Authorization": "Bearer secreT"}
OPEN, READ, CHANGE = Use

# where it listens, what for, headers, the client -> the status; 200 if it is not refused
REQUESTS: tuple[tuple[str, Use, dict[str, str], str, int], ...] = (
    ("127.0.0.1", OPEN, LOCAL, HERE, 200),
    ("127.0.0.1", READ, LOCAL, HERE, 200),
    ("127.0.0.1", READ, {"Host": "localhost:8008"}, HERE, 200),
    ("127.0.0.1", READ, {"Host": "localhost"}, HERE, 200),
    ("127.0.0.1", READ, {"Host": "[::1]:9000"}, HERE, 200),
    ("::1", READ, {"Host": "[::1]:8008"}, "::1", 200),
    ("127.0.0.1", CHANGE, LOCAL, HERE, 401),
    ("127.0.0.1", CHANGE, {**LOCAL, **RIGHT}, HERE, 200),
    ("127.0.0.1", CHANGE, {**LOCAL, "Authorization": "bearer  secret"}, HERE, 200),
    # a wrong token is one also where none is needed: its page has to know that it can't change anything
    ("127.0.0.1", READ, {**LOCAL, **WRONG}, HERE, 401),
    ("127.0.0.1", CHANGE, {**LOCAL, **WRONG}, HERE, 401),
    ("127.0.0.1", CHANGE, {**LOCAL, "Authorization": "Bearer"}, HERE, 401),
    ("127.0.0.1", CHANGE, {**LOCAL, "Authorization": "Basic secret"}, HERE, 401),
    ("127.0.0.1", CHANGE, {**LOCAL, "Authorization": "Bearer sécret"}, HERE, 401),
    ("127.0.0.1", CHANGE, {**LOCAL, "Authorization": "secret"}, HERE, 401),
    # a stranger's name was made to lead here
    ("127.0.0.1", OPEN, {"Host": "evil.example:8008"}, HERE, 421),
    ("127.0.0.1", READ, {"Host": "evil.example"}, HERE, 421),
    ("127.0.0.1", CHANGE, {"Host": "127.0.0.1.evil.example", **RIGHT}, HERE, 421),
    ("127.0.0.1", READ, {"Host": ""}, HERE, 421),
    ("127.0.0.1", READ, {"Host": "[::1"}, HERE, 421),
    ("127.0.0.1", READ, {}, HERE, 421),
    # a stranger's page sends a request here
    ("127.0.0.1", READ, {**LOCAL, "Origin": "http://127.0.0.1:8008"}, HERE, 200),
    ("127.0.0.1", OPEN, {**LOCAL, "Origin": "http://evil.example"}, HERE, 403),
    ("127.0.0.1", READ, {**LOCAL, "Origin": "http://evil.example"}, HERE, 403),
    ("127.0.0.1", READ, {**LOCAL, "Origin": "http://127.0.0.1:3000"}, HERE, 403),
    ("127.0.0.1", READ, {**LOCAL, "Origin": "null"}, HERE, 403),
    ("127.0.0.1", CHANGE, {**LOCAL, **RIGHT, "Origin": "http://evil.example"}, HERE, 403),
    ("127.0.0.1", READ, {**LOCAL, "Sec-Fetch-Site": "cross-site"}, HERE, 403),
    ("127.0.0.1", READ, {**LOCAL, "Sec-Fetch-Site": "same-site"}, HERE, 403),
    ("127.0.0.1", READ, {**LOCAL, "Sec-Fetch-Site": "same-origin"}, HERE, 200),
    ("127.0.0.1", READ, {**LOCAL, "Sec-Fetch-Site": "none"}, HERE, 200),
    ("127.0.0.1", OPEN, {**LOCAL, "Sec-Fetch-Site": "cross-site"}, HERE, 200),  # a link to the page
    # it listens for other machines as well
    ("0.0.0.0", OPEN, {"Host": "ops.example:8008"}, OTHER, 200),
    ("0.0.0.0", READ, {"Host": "ops.example:8008"}, OTHER, 401),
    ("0.0.0.0", READ, {"Host": "ops.example:8008", **RIGHT}, OTHER, 200),
    ("0.0.0.0", READ, {"Host": "ops.example:8008"}, HERE, 401),
    ("0.0.0.0", READ, LOCAL, OTHER, 401),
    ("0.0.0.0", READ, LOCAL, HERE, 200),
    ("0.0.0.0", READ, LOCAL, "", 401),
    ("0.0.0.0", CHANGE, {"Host": "ops.example:8008"}, OTHER, 401),
    ("0.0.0.0", CHANGE, {"Host": "ops.example:8008", **RIGHT}, OTHER, 200),
    ("0.0.0.0", CHANGE, {"Host": "ops.example", **RIGHT, "Origin": "http://evil.example"}, OTHER, 403),
)


class Requests(SynchronousTestCase):
    """The table."""

    def test_table(self) -> None:
        """Each request is let in, or refused with its status."""
        for listens_at, use, headers, peer, status in REQUESTS:
            refusal = Access(listens_at, "secret").refusal(use, Headers(headers), peer)
            self.assertEqual(200 if refusal is None else refusal[0], status, (listens_at, use, headers, peer))

    def test_token_is_not_shown(self) -> None:
        """What is printed of the rules does not have the token."""
        self.assertNotIn("secret", repr(Access("127.0.0.1", "secret")))
