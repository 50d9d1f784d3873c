"""The page's server, by requests over a real port."""

from __future__ import annotations

import errno
import json
from importlib.resources import files
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from txservices.page import server
from txservices.page.server import Page, Refused
from txservices.utils.secrets import hide


class ServerCase(TestCase):
    """A page with answers of the test's own."""

    def setUp(self) -> None:
        self.asked: list[Any] = []
        self.page = self.made()
        self.page.listen("127.0.0.1", 0)
        self.base = self.page.address.partition("#")[0].rstrip("/")
        self.token = {"Authorization": f"Bearer {self.page.token}"}

    def made(self) -> Page:
        page = Page(
            {}, self.state, {"a.b.1": {"text": "</script>"}}.get, {"/do": self.do, "/fail": self.refuse}, reactor
        )
        self.addCleanup(page.stop)
        return page

    async def state(self) -> dict[str, Any]:
        return {"services": []}

    async def do(self, asked: dict[str, Any]) -> Any:
        self.asked.append(asked)
        return {"done": len(self.asked)}

    async def refuse(self, asked: dict[str, Any]) -> Any:
        raise ValueError("a bug") if asked else Refused(409, "not now")

    async def get(self, path: str, **headers: str) -> Any:
        return await self.request("GET", path, headers)

    async def post(self, path: str, body: bytes, kind: str = "application/json", **headers: str) -> Any:
        return await self.request("POST", path, {"Content-Type": kind, **headers}, body)

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await treq.request(
            method, self.base + path, headers=named, data=body, persistent=False, reactor=reactor
        )
        response.body = await treq.content(response)
        return response


class Files(ServerCase):
    """The page's own files."""

    async def test_every_file(self) -> None:
        """Each file in the folder is served, with its type, and with headers that allow it nothing from elsewhere."""
        kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        for file in files("txservices.page").joinpath("assets").iterdir():
            response = await self.get("/" if file.name == "index.html" else f"/{file.name}")
            self.assertEqual(response.body, file.read_bytes(), file.name)
            header = response.headers.getRawHeaders
            self.assertEqual(header("Content-Type"), [f"{kinds[file.name.split('.')[-1]]}; charset=utf-8"])
            [policy] = header("Content-Security-Policy")
            rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
            self.assertEqual(rules["default-src"], "'none'")
            self.assertEqual(
                {rules[name] for name in ("script-src", "style-src", "connect-src", "img-src")}, {"'self'"}
            )
            self.assertEqual(rules["frame-ancestors"], "'none'")
            self.assertEqual(header("Referrer-Policy"), ["no-referrer"])
            self.assertEqual(header("Cache-Control"), ["no-store"])
            self.assertEqual(header("X-Content-Type-Options"), ["nosniff"])

    def test_nothing_from_elsewhere(self) -> None:
        """No file loads anything from the internet, and no script makes HTML of text."""
        for file in files("txservices.page").joinpath("assets").iterdir():
            text = file.read_text().replace("http://www.w3.org/", "")  # names of XML's, which are not loaded
            for word in ("http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
                self.assertNotIn(word, text, file.name)

    async def test_no_other_file(self) -> None:
        """What is beside the files is not served."""
        for path in ("/server.py", "/../server.py", "/%2e%2e/server.py", "/assets/page.js", "/index.html"):
            self.assertEqual((await self.get(path)).code, 404, path)


class Rules(ServerCase):
    """Who is let in: ``access`` has the table."""

    async def test_reading(self) -> None:
        """The state is read without a token; a wrong one, a foreign host and a foreign origin are refused."""
        response = await self.get("/state.json")
        self.assertEqual(json.loads(response.body), {"number": 1, "services": []})
        for headers, status in (
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Host": "evil.example"}, 421),
            ({"Origin": "http://evil.example"}, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            (self.token, 200),
        ):
            for path in ("/state.json?after=0", "/failure.json?id=a.b.1"):
                response = await self.get(path, **headers)
                self.assertEqual(response.code, status, (path, headers))
                if status != 200:
                    self.assertEqual(list(json.loads(response.body)), ["error"])
                self.assertIsNone(response.headers.getRawHeaders("Access-Control-Allow-Origin"))

    async def test_changing(self) -> None:
        """Nothing is done without the token, nor for the page of somebody else's, nor for what a form can send."""
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({**self.token, "Host": "evil.example"}, 421),
            ({**self.token, "Origin": "http://evil.example"}, 403),
        ):
            self.assertEqual((await self.post("/do", b"{}", **headers)).code, status, headers)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            self.assertEqual((await self.post("/do", b"{}", kind, **self.token)).code, 415, kind)
        self.assertEqual((await self.get("/do", **self.token)).code, 405)
        self.assertEqual(self.asked, [])
        response = await self.post("/do", b'{"a": 1}', **self.token, Origin=self.base)
        self.assertEqual((json.loads(response.body), self.asked), ({"done": 1}, [{"a": 1}]))

    async def test_token_is_not_logged(self) -> None:
        """No line of the log has the token, and what would have it is hidden."""
        lines: list[Any] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        await self.get("/state.json", **self.token)
        await self.get(f"/?token={self.page.token}")
        self.assertEqual([line for line in lines if self.page.token in str(line)], [])
        self.assertNotIn(self.page.token, hide(f"GET /?token={self.page.token}"))

    def test_tokens_differ(self) -> None:
        """Each run has a token of its own, long enough not to be guessed."""
        self.assertNotEqual(self.made().token, self.page.token)
        self.assertGreaterEqual(len(self.page.token), 32)


class Answers(ServerCase):
    """What is answered."""

    async def test_failure(self) -> None:
        """What is known of a failure; 404 for one that is not known."""
        response = await self.get("/failure.json?id=a.b.1")
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["application/json"])
        self.assertEqual(json.loads(response.body), {"text": "</script>"})
        self.assertEqual((await self.get("/failure.json?id=x")).code, 404)
        self.assertEqual((await self.get("/failure.json")).code, 404)

    async def test_mistakes(self) -> None:
        """What is no object is 400, what can't be done says so, and what fails is 500, without its error."""
        for body in (b"", b"[]", b"1", b"{", b"\xff"):
            self.assertEqual((await self.post("/do", body, **self.token)).code, 400, body)
        response = await self.post("/fail", b"{}", **self.token)
        self.assertEqual((response.code, json.loads(response.body)), (409, {"error": "not now"}))
        response = await self.post("/fail", b'{"a": 1}', **self.token)
        self.assertEqual(response.code, 500)
        self.assertNotIn(b"a bug", response.body)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_after_is_no_number(self) -> None:
        """A page that asks for nonsense is given the state."""
        self.assertEqual((await self.get("/state.json?after=x")).code, 200)


class Address(ServerCase):
    """Where it listens."""

    def test_address(self) -> None:
        """The address to open has the token after the #, where no browser sends it anywhere."""
        self.assertRegex(self.page.address, r"^http://127\.0\.0\.1:\d+/#token=[\w-]+$")

    def test_in_use(self) -> None:
        """A port that was asked for and is taken is an error."""
        port = self.page.listening.getHost().port
        error = self.assertRaises(CannotListenError, self.made().listen, "127.0.0.1", port)
        self.assertEqual(error.socketError.errno, errno.EADDRINUSE)

    def test_default_in_use(self) -> None:
        """If the usual port is taken, and no other was asked for, any free one is taken."""
        self.patch(server, "PORT", self.page.listening.getHost().port)
        other = self.made()
        other.listen("127.0.0.1", None)
        self.assertNotEqual(other.listening.getHost().port, self.page.listening.getHost().port)
