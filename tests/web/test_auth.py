"""Authentication: passwords and tokens, before a method runs."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.logger import LogLevel, capturedLogs
from werkzeug.exceptions import Forbidden

from tests.web.peer import WebTestCase, text
from txservices.web.auth import BasicAuth, BearerAuth
from txservices.web.handlers import http
from txservices.web.mounts import Mount
from txservices.web.static import Static

ran: list[str] = []


def only_ada(request):
    if request.headers.get("X-Name") != "ada":
        raise Forbidden("only Ada")
    return "ada"


class Service:
    """URLs for some."""

    name = "service"
    files = Static("/files", ".", auth=BasicAuth({"ada": "s3cret"}))

    @http("GET", "/basic", auth=BasicAuth({"ada": "s3cret", "zoë": "pä:ss", "empty": ""}, realm="the shop"))
    def basic(self, request):
        ran.append("basic")
        return request.user

    @http("GET", "/checked", auth=BasicAuth(lambda name, password: password == name * 2))
    def checked(self, request):
        return request.user

    @http("GET", "/bearer", auth=BearerAuth({"t0ken": {"name": "ada"}, "other": {"name": "bob"}}))
    def bearer(self, request):
        return request.user

    @http("GET", "/found", auth=BearerAuth({"a": 1}.get))
    def found(self, request):
        return {"owner": request.user}

    @http("GET", "/own", auth=only_ada)
    def own(self, request):
        return request.user

    @http("GET", "/broken", auth=lambda request: 1 / 0)
    def broken(self, request):
        return ""

    @http("GET", "/open")
    def open(self, request):
        return repr(request.user)


def basic(name: str, password: str) -> str:
    return "Authorization: Basic " + b64encode(f"{name}:{password}".encode()).decode()


TABLE: list[tuple[str, str | None, int, Any]] = [
    ("/basic", basic("ada", "s3cret"), 200, "ada"),
    ("/basic", basic("zoë", "pä:ss"), 200, "zoë"),
    ("/basic", basic("empty", ""), 200, "empty"),
    ("/basic", basic("ada", "s3cre"), 401, None),
    ("/basic", basic("ada", ""), 401, None),
    ("/basic", basic("bob", ""), 401, None),
    ("/basic", basic("", ""), 401, None),
    ("/basic", None, 401, None),
    ("/basic", "Authorization: Basic", 401, None),
    ("/basic", "Authorization: Basic !!!", 401, None),
    ("/basic", "Authorization: Basic /////w==", 401, None),
    ("/basic", "Authorization: Bearer t0ken", 401, None),
    ("/basic", "Authorization:", 401, None),
    ("/checked", basic("a", "aa"), 200, "a"),
    ("/checked", basic("a", "a"), 401, None),
    ("/bearer", "Authorization: Bearer t0ken", 200, '{"name":"ada"}'),
    ("/bearer", "Authorization: bearer other", 200, '{"name":"bob"}'),
    ("/bearer", "Authorization: Bearer t0ke", 401, None),
    ("/bearer", "Authorization: Bearer", 401, None),
    ("/bearer", basic("ada", "t0ken"), 401, None),
    ("/bearer", None, 401, None),
    ("/found", "Authorization: Bearer a", 200, '{"owner":1}'),
    ("/found", "Authorization: Bearer b", 401, None),
    ("/own", "X-Name: ada", 200, "ada"),
    ("/own", "X-Name: bob", 403, None),
    ("/open", basic("ada", "s3cret"), 200, "None"),
    ("/files/none", basic("ada", "s3cret"), 404, None),
    ("/files/none", None, 401, None),
    ("/files/pyproject.toml", None, 401, None),
]


class Auth(WebTestCase):
    """auth= of a URL."""

    async def test_each(self) -> None:
        """The method is told who it is; who may not come in is answered 401 or 403, without a line in the log."""
        await self.serve(Service)
        ran.clear()
        with capturedLogs() as logged:
            for path, header, status, body in TABLE:
                answer = self.peer().get(path, *([] if header is None else [header]))
                self.assertEqual(int(answer.split()[1]), status, (path, header))
                self.assertEqual(b"\r\nWWW-Authenticate: " in answer, status == 401, answer)
                if body is not None:
                    self.assertEqual(answer.partition(b"\r\n\r\n")[2].decode(), body)
        self.assertEqual(ran, ["basic"] * 3)
        self.assertEqual([each for each in logged if each["log_level"] >= LogLevel.warn], [])

    async def test_challenges(self) -> None:
        """A client is told how to come in, and what was wrong with its token."""
        await self.serve(Service)
        get = self.peer().get
        self.assertIn(b'\r\nWWW-Authenticate: Basic realm="the shop", charset=UTF-8\r\n', get("/basic"))
        self.assertIn(b"\r\nWWW-Authenticate: Bearer realm=restricted\r\n", get("/bearer"))
        wrong = get("/bearer", "Authorization: Bearer x")
        self.assertIn(b"\r\nWWW-Authenticate: Bearer realm=restricted, error=invalid_token\r\n", wrong)

    async def test_broken(self) -> None:
        """A function that fails lets nobody in, and the log has its error."""
        await self.serve(Service)
        self.assertIn(b" 500 ", self.peer().get("/broken"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_problem(self) -> None:
        """As a problem it has the challenge, too."""
        await self.serve(Service, WEB_PROBLEM_DETAILS=True)
        answer = self.peer().get("/basic")
        self.assertIn(b"application/problem+json", answer)
        self.assertIn(b"\r\nWWW-Authenticate: Basic ", answer)

    async def test_mount(self) -> None:
        """What is mounted is behind it as well."""

        class Mounted:
            name = "mounted"
            app = Mount("/app", wsgi=lambda environ, start_response: [], auth=BearerAuth({}))

        await self.serve(Mounted)
        self.assertIn(b" 401 ", self.peer().get("/app"))
        self.assertNotEqual(self.peer().get("/app"), text("200 OK", ""))
