"""Users and their passwords: guest comes in from this machine only, and guessing has an end. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address

GUEST = "guest"  # its password is known to everybody, so RabbitMQ, too, takes it from this machine only
REFUSALS_MAX = 10  # refused logins from one address; until some are forgotten, further ones are refused unread
FORGET_INTERVAL = 6.0  # seconds after which one refused login of an address is forgotten
ADDRESSES_MAX = 1_000  # addresses whose refused logins are counted


class Users:
    """The users of a broker.

    Args:
        passwords: by user name.
        seconds: the clock.
    """

    def __init__(self, passwords: Mapping[str, str], seconds: Callable[[], float]) -> None:
        self.passwords = dict(passwords)
        self.seconds = seconds
        self.refused: dict[str, float] = {}  # address -> the time at which all its refused logins are forgotten

    def accepts(self, user: str, password: str, host: str) -> bool:
        """Whether a client at that address may come in. The time that it takes says nothing about the password.

        After ``REFUSALS_MAX`` refused logins from another machine, all further ones from it are refused. Logins from
        this machine are not counted: one client with a wrong password would shut out all others.
        """
        local = is_loopback(host)
        now = self.seconds()
        forgotten = max(self.refused.get(host, now), now)
        if not local and forgotten - now > (REFUSALS_MAX - 1) * FORGET_INTERVAL:
            return False
        expected = self.passwords.get(user)
        same = compare_digest((expected or "").encode(), password.encode(errors="replace"))
        if same and expected is not None and (local or user != GUEST):
            return True
        if not local:
            self.refused.pop(host, None)
            if len(self.refused) >= ADDRESSES_MAX:
                del self.refused[next(iter(self.refused))]
            self.refused[host] = forgotten + FORGET_INTERVAL
        return False


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
