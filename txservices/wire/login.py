"""Login: what a client answers to ``connection.start`` for each mechanism, and how a server reads it. Pure.

Writing and reading stand side by side; a mechanism is one line of ``MECHANISMS``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from txservices.exceptions import ConfigurationError
from txservices.wire.tables import decode_table, encode_longstr, encode_table


@frozen
class Mechanism:
    """One way to say who is connecting.

    Attributes:
        encode: makes the client's response from a user and a password.
        decode: reads user and password back; None where they are not in the response, so that the embedded broker
            can't offer the mechanism.
    """

    encode: Callable[[str, str], bytes]
    decode: Callable[[bytes], tuple[str, str]] | None


def encode_plain(username: str, password: str) -> bytes:
    return b"\0%b\0%b" % (username.encode(), password.encode())


def decode_plain(response: bytes) -> tuple[str, str]:
    """PLAIN: an identity that nobody uses, the user and the password, with a zero byte before each of the two."""
    _, _, rest = response.partition(b"\0")
    username, _, password = rest.partition(b"\0")
    return username.decode(errors="replace"), password.decode(errors="replace")


def encode_amqplain(username: str, password: str) -> bytes:
    """AMQPLAIN: a field table without its length."""
    return encode_table({"LOGIN": username, "PASSWORD": password})[4:]


def decode_amqplain(response: bytes) -> tuple[str, str]:
    table, _ = decode_table(encode_longstr(response))
    return str(table.get("LOGIN")), str(table.get("PASSWORD"))


MECHANISMS = {
    "PLAIN": Mechanism(encode_plain, decode_plain),
    "AMQPLAIN": Mechanism(encode_amqplain, decode_amqplain),
    # the user is in the client's TLS certificate
    "EXTERNAL": Mechanism(lambda username, password: b"", None),
}


def encode_login(mechanism: str, username: str, password: str) -> bytes:
    """The response of ``connection.start-ok``; ``ConfigurationError`` for a mechanism that is not known here."""
    if mechanism not in MECHANISMS:
        raise ConfigurationError(f"LOGIN_METHOD {mechanism!r} is not one of {', '.join(MECHANISMS)}")
    return MECHANISMS[mechanism].encode(username, password)


READABLE = {name: mechanism.decode for name, mechanism in MECHANISMS.items() if mechanism.decode is not None}
