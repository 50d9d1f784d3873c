"""Authentication: passwords (basic, RFC 7617) and tokens (bearer, RFC 6750) of requests.

    @http("GET", "/orders", auth=BearerAuth(token_owner))
    def orders(self, request):
        return self.orders_of(request.user)

``auth=`` takes any function of a request that returns who it is, for ``request.user``, or raises. It is called before
the method's worker begins, in the reactor: a check that has to wait belongs in the method. Both kinds send passwords or
tokens as they are, so they are for HTTPS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any

from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized
from werkzeug.wrappers import Request

from txservices.web.ours import ours

__all__ = ["BasicAuth", "BearerAuth"]


class BasicAuth:
    """Takes a name and a password, which a browser asks its user for.

    Args:
        passwords: each by its name, or a function of a name and a password that tells whether they are right.
        realm: what the browser says that they are for.
    """

    def __init__(self, passwords: Mapping[str, str] | Callable[[str, str], bool], realm: str = "restricted") -> None:
        self.passwords = passwords
        self.realm = realm

    def __call__(self, request: Request) -> str:
        """The name. ``Unauthorized`` (401) without one, or with a wrong password."""
        given = request.authorization
        if given is not None and given.type == "basic":
            name, password = given.username, given.password
            if name is not None and password is not None and self.is_right(name, password):
                return name
        raise refused(WWWAuthenticate("basic", {"realm": self.realm, "charset": "UTF-8"}))

    def is_right(self, name: str, password: str) -> bool:
        if callable(self.passwords):
            return bool(self.passwords(name, password))
        expected = self.passwords.get(name)
        same = compare_digest(password.encode(), ("" if expected is None else expected).encode())
        return same and expected is not None


class BearerAuth:
    """Takes a token.

    Args:
        tokens: who has each token, or a function of a token that returns who has it, or None.
        realm: what the token is for.
    """

    def __init__(self, tokens: Mapping[str, Any] | Callable[[str], Any], realm: str = "restricted") -> None:
        self.tokens = tokens
        self.realm = realm

    def __call__(self, request: Request) -> Any:
        """Who has the token. ``Unauthorized`` (401) without one, or with a wrong one."""
        given = request.authorization
        about: dict[str, str | None] = {"realm": self.realm}
        if given is not None and given.type == "bearer" and given.token:
            owner = self.owner_of(given.token)
            if owner is not None:
                return owner
            about["error"] = "invalid_token"
        raise refused(WWWAuthenticate("bearer", about))

    def owner_of(self, token: str) -> Any:
        if callable(self.tokens):
            return self.tokens(token)
        found = None
        for each, owner in self.tokens.items():  # all of them, so that the time does not tell which
            if compare_digest(token.encode(), each.encode()):
                found = owner
        return found


def refused(challenge: WWWAuthenticate) -> Unauthorized:
    return ours(Unauthorized("a right name and password, or a right token, is needed", www_authenticate=challenge))
