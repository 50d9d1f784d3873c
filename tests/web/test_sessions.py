"""Sessions in signed cookies: what is kept, for how long, and what is not believed."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred

from tests.web.peer import WebTestCase, text
from txservices.exceptions import ConfigurationError
from txservices.extensions import Entrypoint
from txservices.testing.services import entrypoint_hook
from txservices.web import sessions
from txservices.web.handlers import http
from txservices.web.sessions import COOKIE_MAX, Sessions

SECRET = "a secret of the tests"


class Service:
    """Counts, in the session."""

    name = "service"
    session = Sessions()

    @http("GET", "/count")
    def count(self, request):
        self.session["count"] = self.session.get("count", 0) + 1
        return str(self.session["count"])

    @http("GET", "/nested")
    async def nested(self, request):
        self.session.setdefault("list", []).append("x")
        return {"list": self.session["list"]}

    @http("GET", "/look")
    def look(self, request):
        return str(self.session.get("count"))

    @http("GET", "/clear")
    def clear(self, request):
        self.session.clear()
        return "cleared"

    @http("GET", "/long")
    def long(self, request):
        self.session["long"] = "".join(map(chr, range(256, 256 + COOKIE_MAX)))
        return ""

    @http("GET", "/failed")
    def failed(self, request):
        self.session["count"] = 100
        raise ValueError


def body(answer: bytes) -> str:
    return answer.partition(b"\r\n\r\n")[2].decode()


def cookie(answer: bytes) -> str | None:
    """The header that a browser sends after it."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    found = [line.partition(": ")[2] for line in lines if line.startswith("Set-Cookie: ")]
    assert len(found) <= 1
    return f"Cookie: {found[0].partition(';')[0]}" if found else None


class Cookies(WebTestCase):
    """From one request to the next."""

    async def start(self, service: Any = Service, **config: Any) -> Any:
        await self.serve(service, **{"WEB_SESSION_SECRET": SECRET, **config})
        return self.peer().get

    async def test_kept(self) -> None:
        """What a method puts there is there again, also if it is inside of something else."""
        get = await self.start()
        first = get("/count")
        self.assertEqual(body(first), "1")
        second = get("/count", cookie(first))
        self.assertEqual(body(second), "2")
        self.assertEqual(body(get("/look", cookie(second))), "2")
        third = get("/nested", cookie(second))
        fourth = get("/nested", cookie(third))
        self.assertEqual(body(fourth), '{"list":["x","x"]}')
        self.assertEqual(body(get("/count", cookie(fourth))), "3")

    async def test_head(self) -> None:
        """The cookie is out of reach for scripts and other sites, and is set only after a change."""
        get = await self.start()
        answer = get("/count")
        self.assertRegex(
            answer,
            rb"\r\nSet-Cookie: session=[\w.\-]+; Expires=[^;]+; Max-Age=1209600; Secure; HttpOnly; Path=/; SameSite=Lax"
            rb"\r\n",
        )
        self.assertIn(b"\r\nVary: Cookie\r\n", answer)
        look = get("/look", cookie(answer))
        self.assertIsNone(cookie(look))
        self.assertIn(b"\r\nVary: Cookie\r\n", look)
        self.assertIsNone(cookie(get("/look")))

    async def test_cleared(self) -> None:
        """An empty session is no cookie any more."""
        get = await self.start()
        answer = get("/clear", cookie(get("/count")))
        self.assertRegex(answer, rb"\r\nSet-Cookie: session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; ")

    async def test_not_believed(self) -> None:
        """A cookie that we have not signed, for this name and with this secret, is as good as none."""
        get = await self.start()
        good = cookie(get("/count"))
        assert good is not None
        name, _, value = good.partition("=")
        payload, stamp, signature = value.split(".")
        for forged in (
            "",
            "x",
            value[:-2] + ("AA" if value[-2:] != "AA" else "BB"),
            f"{payload}.{stamp}.",
            f"eyJjb3VudCI6OTl9.{stamp}.{signature}",
            f"{payload}.AAAAAA.{signature}",
            value * 50,
            "\xff",
        ):
            self.assertEqual(body(get("/look", f"{name}={forged}")), "None", forged)
        self.assertEqual(body(get("/look", good)), "1")

    async def test_secrets(self) -> None:
        """Of several secrets the first signs, and all are believed; a secret that has gone is not."""
        old = cookie((await self.start())("/count"))
        await self.runner.stop()
        get = await self.start(WEB_SESSION_SECRET=["another secret, newer", SECRET])
        self.assertEqual(body(get("/look", old)), "1")
        new = cookie(get("/count", old))
        await self.runner.stop()
        get = await self.start(WEB_SESSION_SECRET="another secret, newer")
        self.assertEqual(body(get("/look", new)), "2")
        self.assertEqual(body(get("/look", old)), "None")

    async def test_age(self) -> None:
        """A session ends max_age after its last change."""

        class Short:
            name = "short"
            session = Sessions(max_age=60, secure=False, same_site="Strict", path="/a", cookie="c")
            count, look = Service.count, Service.look

        get = await self.start(Short)
        answer = get("/count")
        self.assertRegex(answer, rb"Set-Cookie: c=[^;]+; Expires=[^;]+; Max-Age=60; HttpOnly; Path=/a; SameSite=Strict")
        now = time.time()
        self.patch(time, "time", lambda: now + 59)
        self.assertEqual(body(get("/look", cookie(answer))), "1")
        self.patch(time, "time", lambda: now + 62)
        self.assertEqual(body(get("/look", cookie(answer))), "None")

    async def test_failed(self) -> None:
        """A method that fails is answered 500, with the session that it has left."""
        get = await self.start()
        answer = get("/failed")
        self.assertIn(b" 500 ", answer)
        self.assertEqual(body(get("/look", cookie(answer))), "100")
        self.flushLoggedErrors(ValueError)

    async def test_long(self) -> None:
        """A session that browsers would drop is an error, in the log."""
        get = await self.start()
        self.assertIn(b" 500 ", get("/long"))
        [error] = self.flushLoggedErrors(ValueError)
        self.assertIn("browsers keep", str(error.value))

    async def test_just_as_long(self) -> None:
        """One that browsers just keep is sent, and read."""
        get = await self.start()
        first = cookie(get("/count"))
        assert first is not None
        self.patch(sessions, "COOKIE_MAX", len(first.partition("=")[2]))
        second = get("/count", first)
        self.assertEqual((body(second), body(get("/look", cookie(second)))), ("2", "2"))

    async def test_without_a_browser(self) -> None:
        """A method that is called by something else than a browser has an empty session, which nobody keeps."""

        class Both:
            name = "both"
            session = Sessions()

            @Entrypoint.decorator
            def remember(self) -> Any:
                self.session["count"] = self.session.get("count", 0) + 1
                return self.session

            @http("GET", "/")
            def look(self, request):
                return str(self.session)

        [container] = (await self.serve(Both, WEB_SESSION_SECRET=SECRET)).containers
        for _ in range(2):
            with entrypoint_hook(container, "remember") as remember:
                self.assertEqual(await remember(), {"count": 1})
        self.assertEqual(body(self.peer().get("/")), "{}")

    async def test_mistakes(self) -> None:
        """Without a secret, or with a short one, the start fails, and a line says how to make one."""
        for secret in (None, "short", [SECRET, "short"]):
            error = await self.assertFailure(
                Deferred.fromCoroutine(self.serve(Service, WEB_SESSION_SECRET=secret)), ConfigurationError
            )
            self.assertIn("WEB_SESSION_SECRET: ", str(error))
            self.assertNotIn("'short'", str(error))

    async def test_others(self) -> None:
        """A service without sessions is answered as ever, byte for byte."""

        class Plain:
            name = "plain"

            @http("GET", "/plain")
            def plain(self, request):
                return "plain"

        await self.serve(Service, Plain, WEB_SESSION_SECRET=SECRET)
        self.assertEqual(self.peer().get("/plain"), text("200 OK", "plain"))
