"""Users: who may come in, and from where."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client
from tests.peer import method
from txservices.broker import users
from txservices.broker.handshake import LOGIN_FRAME_MAX, SHOWN_MAX
from txservices.broker.server import Broker
from txservices.broker.users import Users, is_loopback

FAR = "192.0.2.7"


class UsersTests(SynchronousTestCase):
    """Names and passwords."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.users = Users({"guest": "guest", "me": "s\u00e9cret"}, self.clock.seconds)

    def test_table(self) -> None:
        """A user comes in with the password, and guest only from this machine."""
        for user, password, host, expected in (
            ("guest", "guest", "127.0.0.1", True),
            ("guest", "guest", "127.0.0.9", True),
            ("guest", "guest", "::1", True),
            ("guest", "guest", "::ffff:127.0.0.1", True),
            ("guest", "guest", FAR, False),
            ("guest", "guest", "", False),
            ("me", "s\u00e9cret", "127.0.0.1", True),
            ("me", "s\u00e9cret", FAR, True),
            ("me", "secret", "127.0.0.1", False),
            ("me", "", "127.0.0.1", False),
            ("nobody", "", "127.0.0.1", False),
            ("", "", FAR, False),
            ("me", "\udc80", "127.0.0.1", False),
        ):
            self.assertEqual(self.users.accepts(user, password, host), expected, (user, password, host))

    def test_time_tells_nothing(self) -> None:
        """Each password is compared in a time that says nothing of it, also for a user that there isn't."""
        compared: list[tuple[bytes, bytes]] = []

        def compare(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return one == other

        self.patch(users, "compare_digest", compare)
        for user in ("guest", "me", "nobody", ""):
            self.assertFalse(self.users.accepts(user, "x", FAR))
        self.assertEqual([other for _, other in compared], [b"x"] * 4)

    def test_guessing_has_an_end(self) -> None:
        """After ten refused logins an address is refused whatever it says, and later it has one attempt at a time."""
        for _ in range(users.REFUSALS_MAX):
            self.assertFalse(self.users.accepts("me", "guess", FAR))
        self.assertFalse(self.users.accepts("me", "s\u00e9cret", FAR))
        self.assertTrue(self.users.accepts("me", "s\u00e9cret", "192.0.2.8"))
        self.clock.advance(users.FORGET_INTERVAL)
        self.assertTrue(self.users.accepts("me", "s\u00e9cret", FAR))
        self.assertFalse(self.users.accepts("me", "guess", FAR))
        self.assertFalse(self.users.accepts("me", "s\u00e9cret", FAR))

    def test_this_machine_is_not_shut_out(self) -> None:
        """Refused logins of this machine are not counted: one misled client would shut out the others."""
        for _ in range(100):
            self.users.accepts("me", "guess", "127.0.0.1")
        self.assertTrue(self.users.accepts("me", "s\u00e9cret", "127.0.0.1"))

    def test_addresses_have_a_bound(self) -> None:
        """Of more addresses than the limit the oldest is forgotten."""
        self.patch(users, "ADDRESSES_MAX", 8)
        for number in range(100):
            self.users.accepts("me", "guess", f"192.0.2.{number}")
        self.assertEqual(list(self.users.refused), [f"192.0.2.{number}" for number in range(92, 100)])

    def test_loopback(self) -> None:
        """Addresses that only this machine can reach."""
        for host, expected in (("localhost", True), ("127.1.2.3", True), ("0.0.0.0", False), ("::", False)):
            self.assertEqual(is_loopback(host), expected, host)


class LoginTests(SynchronousTestCase):
    """A stranger before the login: what it can do, and what the log shows of it."""

    def test_guest_from_afar(self) -> None:
        """guest is told 403 from another machine."""
        client = Client(Broker(clock=Clock()), host=FAR)
        client.login(authentication_failure_close=True)
        self.assertIn("connection.close", client.names())

    def test_user_and_password(self) -> None:
        """A user comes in with the password, and not with the two exchanged."""
        for user, password, answer in (("me", "secret", "connection.tune"), ("secret", "me", "connection.close")):
            client = Client(Broker(users={"me": "secret"}, clock=Clock()), host=FAR)
            client.login(user, password, authentication_failure_close=True)
            self.assertEqual(client.names()[-1], answer)

    def test_names_in_the_log(self) -> None:
        """A name is cut, and cannot begin a line of its own."""
        client = Client()
        with capturedLogs() as events:
            client.login("x\n2026 all is well" + "y" * 1000)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len(lines), 1)
        self.assertNotIn("\n", lines[0])
        self.assertLess(len(lines[0]), 200 + SHOWN_MAX)

    def test_frames_before_tune(self) -> None:
        """A frame over the limit before the login is 501, and its bytes are not waited for."""
        client = Client()
        client.write(b"AMQP\0\0\x09\x01")
        client.sent()
        client.write(method(0, "connection.start-ok", response=b"x" * LOGIN_FRAME_MAX)[:20])
        ((_, name, args),) = client.sent()
        self.assertEqual((name, args["reply_code"]), ("connection.close", 501))
