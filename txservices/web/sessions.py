"""What a service keeps about a browser from one request to the next, in a signed cookie.

    class Shop:
        name = "shop"
        session = Sessions()

        @http("POST", "/basket")
        def add(self, request):
            self.session.setdefault("items", []).append(request.form["item"])

The browser has the session itself, and no server keeps anything. It can read what is in it, but not change it: the
cookie is signed by ``WEB_SESSION_SECRET``. It can also send an older one again.

This module needs itsdangerous: ``pip install 'txservices[sessions]'``.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from werkzeug.wrappers import Response

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.web.messages import HttpRequest, vary

try:
    from itsdangerous import BadSignature, URLSafeTimedSerializer
except ImportError as error:  # an extra
    raise ImportError(f"sessions need itsdangerous: pip install 'txservices[sessions]' ({error})") from error

__all__ = ["Sessions"]

AGE_MAX = 14 * 24 * 3600  # seconds, if max_age is not given
COOKIE_MAX = 4000  # bytes: browsers drop a cookie over 4,096, with its name and attributes
SECRET_MIN = 16  # characters

Session = dict[str, Any]


class Sessions(DependencyProvider[Session]):
    """Gives the session of a request's browser: a dict of values that JSON has. Whatever the method puts there is kept.

    Args:
        cookie: the name of the cookie.
        max_age: seconds after its last change for which a session is valid.
        secure: whether browsers send it by HTTPS only, and to localhost. False for plain HTTP.
        same_site: whether it is sent with requests that pages of other sites begin: ``Lax`` for links only, ``Strict``
            for none, ``None`` for all.
        path: the URLs to which it is sent.
    """

    def __init__(
        self,
        cookie: str = "session",
        max_age: int = AGE_MAX,
        secure: bool = True,
        same_site: str = "Lax",
        path: str = "/",
    ) -> None:
        self.cookie = cookie
        self.max_age = max_age
        self.secure = secure
        self.same_site = same_site
        self.path = path

    def setup(self) -> None:
        key = configuration.WEB_SESSION_SECRET
        given = key.of(self.container.config)
        secrets = [given] if isinstance(given, str) else list(given or ())
        if not secrets or min(map(len, secrets)) < SECRET_MIN:
            raise ConfigurationError(
                f"{key.name}: Sessions need a secret of {SECRET_MIN} characters or more, the same for all instances:"
                ' python -c "import secrets; print(secrets.token_hex())" makes one'
            )
        self.signer = URLSafeTimedSerializer(
            list(reversed(secrets)),  # itsdangerous signs with the last
            salt=f"txservices {self.cookie}",
            signer_kwargs={"digest_method": sha256, "key_derivation": "hmac"},
        )

    def get_dependency(self, worker_ctx: WorkerContext) -> Session:
        request = next((each for each in worker_ctx.args if isinstance(each, HttpRequest)), None)
        if request is None:
            return {}  # a call, or a message: no browser
        session = self.load(request.cookies.get(self.cookie))
        before = self.signer.dump_payload(session)

        def save(response: Response) -> None:
            vary(response.headers, "Cookie")
            if self.signer.dump_payload(session) != before:
                self.save(response, session)

        request.finishers = [*(request.finishers or ()), save]
        return session

    def load(self, value: str | None) -> Session:
        """The session in a cookie. Empty for one that is too old, or that we have not signed."""
        if value is None or len(value) > COOKIE_MAX:
            return {}
        try:
            session = self.signer.loads(value, max_age=self.max_age)
        except BadSignature:
            return {}
        return session if isinstance(session, dict) else {}

    def save(self, response: Response, session: Session) -> None:
        about: dict[str, Any] = {
            "path": self.path,
            "secure": self.secure,
            "httponly": True,
            "samesite": self.same_site,
        }
        if not session:
            response.delete_cookie(self.cookie, **about)
            return
        value = str(self.signer.dumps(session))
        if len(value) > COOKIE_MAX:
            raise ValueError(f"a session of {len(value)} bytes: browsers keep {COOKIE_MAX}, so keep an id there")
        response.set_cookie(self.cookie, value, max_age=self.max_age, **about)
