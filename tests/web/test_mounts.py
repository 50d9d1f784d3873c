"""Mount: applications of other frameworks under a prefix, for WSGI and of twisted.web's."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import flask
from twisted.internet import reactor as reactor_module
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.static import Data, File

from tests.web.peer import WebTestCase, converse
from txservices.exceptions import ConfigurationError
from txservices.runners import run_services
from txservices.web.forms import FIELDS_MAX
from txservices.web.handlers import http
from txservices.web.mounts import Mount

reactor: Any = reactor_module

app = flask.Flask("mounted")
app.logger.disabled = True
closed: list[str] = []


@app.route("/")
def index():
    return f"index of {flask.request.script_root}"


@app.route("/hello/<name>", methods=["GET", "POST"])
def hello(name):
    return {"name": name, "form": flask.request.form.to_dict(), "query": flask.request.args.to_dict()}


@app.route("/length", methods=["POST"])
def length():
    return str(len(flask.request.get_data()))


@app.route("/url")
def url():
    return flask.url_for("hello", name="x")


@app.route("/stream")
def stream():
    def pieces():
        try:
            for _ in range(100):
                yield "x" * 10_000
        finally:
            closed.append("stream")

    return flask.Response(pieces())


@app.route("/bug")
def bug():
    raise ValueError("s3cret")


@app.route("/cookies")
def cookies():
    response = flask.make_response(",".join(sorted(flask.request.cookies)))
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.route("/header")
def header():
    return flask.request.headers.get("X-User", "nobody")


def written(environ, start_response):
    """The old way, PEP 3333's write()."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    return [b"and returned"]


def late(environ, start_response):
    """start_response is called with the first piece."""
    start_response("200 OK", [("Content-Length", "4")])
    yield b"late"


def replaced(environ, start_response):
    """An error is found before anything is sent."""
    start_response("200 OK", [])
    try:
        raise ValueError
    except ValueError:
        start_response("502 Bad Gateway", [("Content-Type", "text/plain"), ("Content-Length", "4")], sys.exc_info())
    return [b"oops"]


def splitting(environ, start_response):
    start_response("200 OK", [("X-A", "a\r\nX-B: b")])
    return [b""]


def never(environ, start_response):
    return [b"no head"]


def raising(environ, start_response):
    raise SystemExit("s3cret")


class Pages(Resource):
    """A Resource with children, forms, sessions and an answer that comes later."""

    def getChild(self, path, request):
        return self if path == b"" else Resource.getChild(self, path, request)

    def render_GET(self, request):
        return b"pages at /" + b"/".join(request.prepath)

    def render_POST(self, request):
        return b"got " + b",".join(b"%b=%b" % (name, values[0]) for name, values in sorted(request.args.items()))


class Later(Resource):
    isLeaf = True

    def render_GET(self, request):
        def answer():
            request.setHeader(b"X-Later", b"yes")
            request.write(b"la")
            request.write(b"ter")
            request.finish()

        reactor.callLater(0, answer)
        return NOT_DONE_YET


class Empty(Resource):
    isLeaf = True

    def render_GET(self, request):
        request.finish()
        return NOT_DONE_YET


class Counting(Resource):
    isLeaf = True

    def render_GET(self, request):
        session = request.getSession()
        session.count = getattr(session, "count", 0) + 1
        self.sessions = request.site.sessions
        return b"%d" % session.count


class Broken(Resource):
    isLeaf = True

    def render_GET(self, request):
        raise ValueError("s3cret")


def pages() -> Pages:
    root = Pages()
    root.putChild(b"data", Data(b"some data", "text/plain"))
    root.putChild(b"later", Later())
    root.putChild(b"empty", Empty())
    root.putChild(b"broken", Broken())
    return root


class Service:
    """All of them."""

    name = "service"
    flask = Mount("/app", wsgi=app, threads=2)
    written = Mount("/written", wsgi=written)
    late = Mount("/late", wsgi=late)
    replaced = Mount("/replaced", wsgi=replaced)
    splitting = Mount("/splitting", wsgi=splitting)
    never = Mount("/never", wsgi=never)
    raising = Mount("/raising", wsgi=raising)
    pages = Mount("/pages", resource=pages())

    @http("GET", "/app/own")
    def own(self, request):
        return "own"


async def ask(port: int, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> tuple[str, str, bytes]:
    """Status, head and body of an answer."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", "Connection: close", *headers]
    if body and not any(each.startswith("Transfer-Encoding") for each in headers):
        lines.append(f"Content-Length: {len(body)}")
    answer = await converse(port, "\r\n".join([*lines, "", ""]).encode() + body)
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" in head:
        whole = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            whole += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        rest = whole
    return head.split()[1].decode(), head.decode(), rest


class Mounts(TestCase):
    """With sockets and threads."""

    async def test_wsgi(self) -> None:
        """A Flask application is served, with its URLs, forms, cookies and streams; our own URLs go before it."""
        form = "Content-Type: application/x-www-form-urlencoded"
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            table: list[tuple[tuple[str, ...], dict[str, Any], str, bytes | None]] = [
                (("/app/",), {}, "200", b"index of /app"),
                (("/app",), {}, "308", None),
                (("/app/hello/%C3%B8?a=1",), {}, "200", b'{"form":{},"name":"\\u00f8","query":{"a":"1"}}\n'),
                (
                    ("/app/hello/x", form),
                    {"method": "POST", "body": b"b=2"},
                    "200",
                    b'{"form":{"b":"2"},"name":"x","query":{}}\n',
                ),
                (("/app/length",), {"method": "POST", "body": b"x" * 100_000}, "200", b"100000"),
                (
                    ("/app/length", "Transfer-Encoding: chunked"),
                    {"method": "POST", "body": b"3\r\nabc\r\n0\r\n\r\n"},
                    "200",
                    b"3",
                ),
                (("/app/url",), {}, "200", b"/app/hello/x"),
                (("/app/stream",), {}, "200", b"x" * 1_000_000),
                (("/app/stream",), {"method": "HEAD"}, "200", b""),
                (("/app/url",), {"method": "HEAD"}, "200", b""),
                (("/app/nowhere",), {}, "404", None),
                (("/app/url",), {"method": "DELETE"}, "405", None),
                (("/app/bug",), {}, "500", None),
                (("/app/header", "X_User: root"), {}, "200", b"nobody"),
                (("/app/own",), {}, "200", b"own"),
                (("/application",), {}, "404", None),
                (("/written",), {}, "200", b"written and returned"),
                (("/late",), {}, "200", b"late"),
                (("/replaced",), {}, "502", b"oops"),
                (("/splitting",), {}, "500", None),
                (("/never",), {}, "500", None),
                (("/raising",), {}, "500", None),
            ]
            for args, kwargs, status, body in table:
                found, head, got = await ask(port, *args, **kwargs)
                self.assertEqual(found, status, (args, head))
                self.assertNotIn("X-B", head)
                self.assertNotIn(b"s3cret", got)
                if body is not None:
                    self.assertEqual(got, body, args)
            _, head, got = await ask(port, "/app/cookies", "Cookie: x=1; y=2")
            self.assertEqual(got, b"x,y")
            self.assertEqual(head.count("Set-Cookie: "), 2)
        self.assertEqual(closed, ["stream"] * len(closed))
        self.assertTrue(closed)
        self.flushLoggedErrors()

    async def test_threads(self) -> None:
        """So many requests run at a time; the others wait, and our own methods do not."""
        lock = threading.Lock()
        running, most, go_on = [0], [0], threading.Event()

        def slow(environ, start_response):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            go_on.wait(100)
            with lock:
                running[0] -= 1
            start_response("200 OK", [("Content-Length", "0")])
            return []

        class Slow:
            name = "slow"
            mounted = Mount("/slow", wsgi=slow, threads=2)

            @http("GET", "/quick")
            def quick(self, request):
                return "quick"

        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Slow) as runner:
            mount = runner.containers[0].entrypoints[0]
            asking = [Deferred.fromCoroutine(ask(mount.server.port, "/slow")) for _ in range(5)]
            while len(mount.pool.waiting) < 3 or running[0] < 2:
                await deferLater(reactor, 0.01)
            self.assertEqual((await ask(mount.server.port, "/quick"))[2], b"quick")
            go_on.set()
            answers = await gatherResults(asking)
            self.assertEqual([status for status, _, _ in answers], ["200"] * 5)
        self.assertEqual(most, [2])

    async def test_stop(self) -> None:
        """A stop waits for requests that a WSGI application handles."""
        begun, go_on = threading.Event(), threading.Event()

        def slow(environ, start_response):
            begun.set()
            go_on.wait(100)
            start_response("200 OK", [("Content-Length", "4")])
            return [b"done"]

        class Slow:
            name = "slow"
            mounted = Mount("/slow", wsgi=slow)

        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Slow) as runner:
            asking = Deferred.fromCoroutine(ask(runner.containers[0].entrypoints[0].server.port, "/slow"))
            await deferToThread(begun.wait, 100)
            stopping = runner.stop()
            self.assertNoResult(stopping)
            go_on.set()
            self.assertEqual((await asking)[2], b"done")
            await stopping

    async def test_resource(self) -> None:
        """A Resource is rendered with its children, forms, and answers that come later."""
        form = "Content-Type: application/x-www-form-urlencoded"
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Service) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            for args, kwargs, status, body in [
                (("/pages",), {}, "200", b"pages at /pages"),
                (("/pages/",), {}, "200", b"pages at /pages/"),
                (("/%70ages/",), {}, "200", b"pages at /pages/"),
                (("http://here/pages/",), {}, "200", b"pages at /pages/"),
                (("/pages?a=1", form), {"method": "POST", "body": b"b=2"}, "200", b"got a=1,b=2"),
                (("/pages", form), {"method": "POST", "body": b"&" * FIELDS_MAX}, "413", None),
                (("/pages/data",), {}, "200", b"some data"),
                (("/pages/data",), {"method": "HEAD"}, "200", b""),
                (("/pages/later",), {}, "200", b"later"),
                (("/pages/empty",), {}, "200", b""),
                (("/pages/nowhere",), {}, "404", None),
                (("/pages/broken",), {}, "500", None),
                (("/pages",), {"method": "DELETE"}, "501", None),
            ]:
                found, head, got = await ask(port, *args, **kwargs)
                self.assertEqual(found, status, (args, head))
                self.assertEqual(head.count("Date: "), 1, head)
                self.assertNotIn(b"s3cret", got)
                if body is not None:
                    self.assertEqual(got, body, args)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_resource_of_files(self) -> None:
        """twisted.web's File works below a prefix, with its redirects and ranges."""
        folder = self.mktemp()
        os.makedirs(os.path.join(folder, "sub"))
        with open(os.path.join(folder, "a.txt"), "wb") as file:
            file.write(b"x" * 300_000)

        class Files:
            name = "files"
            mounted = Mount("/files", resource=File(folder))

        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Files) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            self.assertEqual((await ask(port, "/files/a.txt"))[2], b"x" * 300_000)
            status, head, got = await ask(port, "/files/a.txt", "Range: bytes=0-1")
            self.assertEqual((status, got), ("206", b"xx"))
            status, head, _ = await ask(port, "/files/sub")
            self.assertEqual(status, "302")
            self.assertIn("/files/sub/", head)

    async def test_session(self) -> None:
        """twisted.web's sessions are kept between requests, by a cookie."""
        counting = Counting()

        class Sessions:
            name = "sessions"
            mounted = Mount("/count", resource=counting)

        async with run_services({"WEB_SERVER_ADDRESS": "0"}, Sessions) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            _, head, got = await ask(port, "/count")
            self.assertEqual(got, b"1")
            [cookie] = [line for line in head.split("\r\n") if line.startswith("Set-Cookie: ")]
            _, _, got = await ask(port, "/count", cookie.removeprefix("Set-").partition(";")[0])
            self.assertEqual(got, b"2")
            for session in list(counting.sessions.values()):
                session.expire()


class Mistakes(WebTestCase):
    """What can't be mounted."""

    async def test_each(self) -> None:
        """It fails the start, with a line that names it."""
        for options in [
            {},
            {"wsgi": app, "resource": pages()},
            {"wsgi": "app"},
            {"resource": object()},
            {"resource": Pages},
            {"wsgi": app, "threads": 0},
            {"wsgi": app, "threads": "2"},
        ]:

            class Wrong:
                name = "wrong"
                mounted = Mount("/a", **options)

            error = await self.assertFailure(Deferred.fromCoroutine(self.serve(Wrong)), ConfigurationError)
            self.assertIn("wrong.mounted: ", str(error))
