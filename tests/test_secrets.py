"""What is hidden, and what is not."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.utils import secrets
from txservices.utils.secrets import REDACTED, hide, is_secret, learn, without_secrets

SECRET = [
    "password",
    "PASSWORD",
    "db_password",
    "DB_PASSWORD",
    "DATABASE.PASSWORD",
    "userPassword",
    "passwd",
    "pwd",
    "DB_PWD",
    "passphrase",
    "secret",
    "SECRET_KEY",
    "client-secret",
    "clientSecret",
    "token",
    "AUTH_TOKEN",
    "accessToken",
    "tokens",
    "API_KEY",
    "apiKey",
    "api-key",
    "apikey",
    "private_key",
    "ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "AccountKey",
    "credentials",
    "EMBEDDED_BROKER_USERS",
    "SMTP_PASS",
]
NO_SECRET = [
    "AMQP_URI",
    "WEB_SERVER_ADDRESS",
    "routing_key",
    "key",
    "keyfile",
    "certfile",
    "max_workers",
    "compass",
    "passive",
    "PASSAGE",
    "tokenizer",
    "secretary",
    "RPC_EXCHANGE",
    "keyboard_access",
    "monkey",
    "author",
    "username",
    "PUBLISH_TIMEOUT",
]
TEXTS = {
    "amqp://shop:s3cret@host:5672/ is away": f"amqp://shop:{REDACTED}@host:5672/ is away",
    "amqp://a:one@h1/;amqp://b:two@h2/": f"amqp://a:{REDACTED}@h1/;amqp://b:{REDACTED}@h2/",
    "postgresql+asyncpg://u:p%40ss@db/x?ssl=1": f"postgresql+asyncpg://u:{REDACTED}@db/x?ssl=1",
    "redis://:s3cret@cache": f"redis://:{REDACTED}@cache",
    "GET http://host:8000/users/@me": "GET http://host:8000/users/@me",
    "mail bob@example.com at 10:30": "mail bob@example.com at 10:30",
    "http://user@host/": "http://user@host/",
    "write amqp://guest:guest@localhost/": "write amqp://guest:guest@localhost/",
    "amqp://guest:guest1@h/ amqp://shop:guest@h/": f"amqp://guest:{REDACTED}@h/ amqp://shop:{REDACTED}@h/",
}


class Secrets(SynchronousTestCase):
    """``utils.secrets``."""

    def setUp(self) -> None:
        self.patch(secrets, "learned", set())
        self.patch(secrets, "pattern", None)

    def test_keys(self) -> None:
        """A key is secret if a word of its name says so, however the words are joined."""
        self.assertEqual([key for key in SECRET if not is_secret(key)], [])
        self.assertEqual([key for key in NO_SECRET if is_secret(key)], [])

    def test_texts(self) -> None:
        """The password of each URL in a text is hidden, and nothing else."""
        for text, expected in TEXTS.items():
            self.assertEqual(hide(text), expected)

    def test_configuration(self) -> None:
        """In a configuration that is shown, secrets are hidden at any depth, and the rest stays."""
        config: dict[str, Any] = {
            "AMQP_URI": ["amqp://a:p/q@h1/", "amqp://b:r#s@h2/"],
            "DB_URL": "postgresql://u:pw@db/x",
            "AMQP_SSL": {"certfile": "c.pem", "password": "pw", "keyfile": "k.pem"},
            "API_KEY": 12345,
            "SHOP": [{"token": {"one": "t", "two": ["u", None]}}, {"name": "n", "secret": False}],
            "EMBEDDED_BROKER_USERS": {"bob": "pw"},
            "max_workers": 5,
        }
        before = repr(config)
        self.assertEqual(
            without_secrets(config),
            {
                "AMQP_URI": [f"amqp://a:{REDACTED}@h1/", f"amqp://b:{REDACTED}@h2/"],
                "DB_URL": f"postgresql://u:{REDACTED}@db/x",
                "AMQP_SSL": {"certfile": "c.pem", "password": REDACTED, "keyfile": "k.pem"},
                "API_KEY": REDACTED,
                "SHOP": [{"token": {"one": REDACTED, "two": [REDACTED, None]}}, {"name": "n", "secret": False}],
                "EMBEDDED_BROKER_USERS": {"bob": REDACTED},
                "max_workers": 5,
            },
        )
        self.assertEqual(repr(config), before)

    def test_depth(self) -> None:
        """What lies too deep, as in a list that has itself in it, is hidden."""
        endless: list[Any] = ["shown"]
        endless.append(endless)
        shown = without_secrets(endless)
        learn(endless, secret=True)
        for _ in range(secrets.DEPTH_MAX - 1):
            shown = shown[1]
        self.assertEqual(shown, ["shown", REDACTED])

    def test_learned(self) -> None:
        """A secret of the configuration is hidden wherever it occurs, percent-encoded too; a short one is not."""
        learn(
            {
                "AMQP_URI": "amqp://u:p%40ssw%20rd@h/",
                "DB": {"password": ["tr.ub(adour", "guest"]},
                "name": "visible-name",
            }
        )
        self.assertEqual(
            hide("p%40ssw%20rd, p@ssw rd, tr.ub(adour, trXub(adour, guest, visible-name"),
            f"{REDACTED}, {REDACTED}, {REDACTED}, trXub(adour, guest, visible-name",
        )

    def test_longest_first(self) -> None:
        """Of a secret that begins with another, nothing is left."""
        learn({"password": "12345678", "token": "123456789"})
        learn({"token": "1234567890"})
        self.assertEqual(hide("1234567890 123456789"), f"{REDACTED} {REDACTED}")
