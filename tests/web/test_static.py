"""Static: which files a client can have, and by which URLs it can have no other."""

from __future__ import annotations

import gzip
import os
from email import message_from_bytes
from email.message import Message
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase
from werkzeug.exceptions import NotFound

from tests.web.peer import WebTestCase, converse, text
from txservices.exceptions import ConfigurationError
from txservices.runners import run_services
from txservices.web.conditional import PIECE
from txservices.web.cors import Cors
from txservices.web.handlers import http
from txservices.web.static import Static, type_of

BIG = bytes(range(256)) * (3 * PIECE // 256)


def parse(answer: bytes) -> tuple[int, Message, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return int(status.split()[1]), message_from_bytes(headers), body


def folder(case: Any) -> str:
    """A folder with files, links out of it and within it, and things that are no files; secrets lie beside it."""
    top = os.path.abspath(case.mktemp())
    root = os.path.join(top, "root")
    for path in ("sub/deep", "empty", ".git", ".well-known", "sub space"):
        os.makedirs(os.path.join(root, path))
    files = {
        "app.js": b"let a = 1;",
        "big.bin": BIG,
        "sub/index.html": b"<p>index</p>",
        "sub/deep/a%2fb.txt": b"odd",
        "sub space/\u00f8.txt": b"letters",
        ".git/config": b"s3cret",
        ".env": b"s3cret",
        ".well-known/security.txt": b"mail us",
        "../secret.txt": b"s3cret",
        "../root-beside/secret.txt": b"s3cret",
    }
    os.makedirs(os.path.join(top, "root-beside"))
    for name, body in files.items():
        with open(os.path.join(root, name), "wb") as file:
            file.write(body)
    os.symlink("../secret.txt", os.path.join(root, "out.txt"))
    os.symlink("/etc", os.path.join(root, "etc"))
    os.symlink("../root-beside", os.path.join(root, "beside"))
    os.symlink("app.js", os.path.join(root, "in.js"))
    os.symlink("loop", os.path.join(root, "loop"))
    os.mkfifo(os.path.join(root, "pipe"))
    return root


def service(root: str, **options: Any) -> type[Any]:
    class Service:
        name = "service"
        assets = Static("/assets", root, **options)

        @http("GET", "/assets/own")
        def own(self, request):
            return "own"

    return Service


# URL -> status, or the body of a 200
PATHS: list[tuple[str, int | bytes]] = [
    ("/assets/app.js", b"let a = 1;"),
    ("/assets/app.js?v=1", b"let a = 1;"),
    ("/assets/%61pp.js", b"let a = 1;"),
    ("/assets/./app.js", 404),
    ("/assets/in.js", b"let a = 1;"),
    ("/assets/own", b"own"),
    ("/assets/sub/", b"<p>index</p>"),
    ("/assets/sub/index.html", b"<p>index</p>"),
    ("/assets/sub%20space/%C3%B8.txt", b"letters"),
    ("/assets/sub/deep/a%252fb.txt", b"odd"),
    ("/assets/.well-known/security.txt", b"mail us"),
    ("/assets", 404),
    ("/assets/", 404),
    ("/assets/sub", 308),
    ("/assets/empty", 404),
    ("/assets/empty/", 404),
    ("/assets/app.js/", 404),
    ("/assets/app.js/x", 404),
    ("/assets/nothing", 404),
    ("/assetsapp.js", 404),
    ("/assets/" + "x" * 5000, 404),
    ("/assets/../secret.txt", 404),
    ("/assets/%2e%2e/secret.txt", 404),
    ("/assets/..%2fsecret.txt", 404),
    ("/assets/%2e%2e%2fsecret.txt", 404),
    ("/assets/..%5csecret.txt", 404),
    ("/assets/%252e%252e%252fsecret.txt", 404),
    ("/assets/sub/../../secret.txt", 404),
    ("/assets/sub/..%2f..%2fsecret.txt", 404),
    ("/assets/../root-beside/secret.txt", 404),
    ("/assets//etc/passwd", 404),
    ("/assets/%2fetc/passwd", 404),
    ("/assets/%2fetc%2fpasswd", 404),
    ("/assets/etc/passwd", 404),
    ("/assets/beside/secret.txt", 404),
    ("/assets/out.txt", 404),
    ("/assets/loop", 404),
    ("/assets/pipe", 404),
    ("/assets/.git/config", 404),
    ("/assets/.env", 404),
    ("/assets/%2egit/config", 404),
    ("/assets/app.js%00", 404),
    ("/assets/%00", 404),
    ("/assets/app.js%00.html", 404),
    ("/assets/%ff", 400),
    ("/assets/%c0%ae%c0%ae/secret.txt", 400),
]


class Files(WebTestCase):
    """Files of a folder."""

    async def test_paths(self) -> None:
        """Each URL has its file or its status, and no file outside of the folder is ever read."""
        await self.serve(service(folder(self)))
        for path, expected in PATHS:
            peer = self.peer()
            answer = peer.get(path)
            status, _, body = parse(answer)
            self.assertNotIn(b"s3cret", answer)
            self.assertNotIn(b"root:", answer)
            if isinstance(expected, bytes):
                self.assertEqual((status, body), (200, expected), path)
            else:
                self.assertEqual(status, expected, path)
            self.assertIn(b" 404 ", peer.get("/nowhere"), "the connection is not in step")

    async def test_head(self) -> None:
        """A file has its type, and what a client needs to ask again only for a change."""
        await self.serve(service(folder(self), max_age=60))
        status, message, _ = parse(self.peer().get("/assets/app.js"))
        self.assertEqual(status, 200)
        self.assertEqual(message["Content-Type"], "text/javascript; charset=utf-8")
        self.assertEqual(message["Cache-Control"], "public, max-age=60")
        self.assertEqual(message["X-Content-Type-Options"], "nosniff")
        self.assertEqual(message["Content-Length"], "10")
        head = self.peer().get("/assets/app.js", method="HEAD")
        self.assertEqual(parse(head)[1].items(), message.items())
        self.assertEqual(parse(head)[2], b"")
        etag, date = f"If-None-Match: {message['ETag']}", f"If-Modified-Since: {message['Last-Modified']}"
        self.assertEqual(parse(self.peer().get("/assets/app.js", etag))[0], 304)
        self.assertEqual(parse(self.peer().get("/assets/app.js", date))[0], 304)

    async def test_changed(self) -> None:
        """A file that has changed has another ETag; by default a client asks each time."""
        root = folder(self)
        await self.serve(service(root))
        _, before, _ = parse(self.peer().get("/assets/app.js"))
        self.assertEqual(before["Cache-Control"], "no-cache")
        with open(os.path.join(root, "app.js"), "wb") as file:
            file.write(b"let b = 22;")
        status, after, body = parse(self.peer().get("/assets/app.js", f"If-None-Match: {before['ETag']}"))
        self.assertEqual((status, body), (200, b"let b = 22;"))
        self.assertNotEqual(before["ETag"], after["ETag"])

    async def test_redirect(self) -> None:
        """A folder without its slash is redirected to it, on this host, with the query."""
        await self.serve(service(folder(self)))
        _, message, _ = parse(self.peer().get("/assets/sub?a=%20b"))
        self.assertEqual(message["Location"], "/assets/sub/?a=%20b")

    async def test_root_redirect(self) -> None:
        """A prefix / serves all URLs that nobody else serves, and redirects to no other host."""
        root = folder(self)
        os.makedirs(os.path.join(root, "evil.example"))
        with open(os.path.join(root, "evil.example", "index.html"), "wb") as file:
            file.write(b"mine")

        class Service:
            name = "service"
            site = Static("/", root)

            @http("GET", "/own")
            def own(self, request):
                return "own"

        await self.serve(Service)
        get = self.peer().get
        self.assertEqual(parse(get("/app.js"))[2], b"let a = 1;")
        self.assertEqual(parse(get("/own"))[2], b"own")
        self.assertEqual(parse(get("/sub/"))[2], b"<p>index</p>")
        self.assertEqual(parse(get("/"))[0], 404)
        self.assertEqual(parse(get("/nothing"))[0], 404)
        for path in ("//evil.example", "/%2fevil.example", "/evil.example"):
            status, message, _ = parse(get(path))
            self.assertTrue(status == 404 or message["Location"] == "/evil.example/", (path, status))

    async def test_methods(self) -> None:
        """Other methods are 405, and OPTIONS says which there are."""
        await self.serve(service(folder(self)))
        self.assertEqual(parse(self.peer().get("/assets/app.js", method="PUT", body="x"))[0], 405)
        self.assertEqual(parse(self.peer().get("/assets/app.js", method="OPTIONS"))[1]["Allow"], "GET, HEAD, OPTIONS")

    async def test_options(self) -> None:
        """Ranges, compression, CORS and problem details are as for methods."""
        options = {"WEB_COMPRESS_FROM": 0, "WEB_PROBLEM_DETAILS": True}
        await self.serve(service(folder(self), cors=Cors("*")), **options)
        get = self.peer().get
        status, message, body = parse(get("/assets/app.js", "Range: bytes=0-2"))
        self.assertEqual((status, message["Content-Range"], body), (206, "bytes 0-2/10", b"let"))
        self.assertEqual(message["Access-Control-Allow-Origin"], "*")
        _, message, body = parse(get("/assets/app.js", "Accept-Encoding: gzip"))
        self.assertEqual((message["Content-Encoding"], gzip.decompress(body)), ("gzip", b"let a = 1;"))
        self.assertTrue(message["ETag"].startswith("W/"))
        self.assertEqual(parse(get("/assets/x"))[1]["Content-Type"], "application/problem+json")

    async def test_mistakes(self) -> None:
        """What is no folder or no prefix fails the start, with a line."""
        root = folder(self)
        for url, path in (("/a", root + "/nowhere"), ("/a", root + "/app.js"), ("a", root), ("/<a>", root), (5, root)):

            class Service:
                name = "service"
                assets = Static(url, path)

            error = await self.assertFailure(Deferred.fromCoroutine(self.serve(Service)), ConfigurationError)
            self.assertIn("service.assets: ", str(error))

    async def test_no_index(self) -> None:
        """Without an index a folder is 404."""
        await self.serve(service(folder(self), index=None))
        for path in ("/assets/sub", "/assets/sub/"):
            self.assertEqual(parse(self.peer().get(path))[0], 404)

    async def test_stopped(self) -> None:
        """When the service has stopped, and its process goes on, it answers 503."""

        class Other:
            name = "other"

            @http("GET", "/other")
            def other(self, request):
                return "other"

        runner = await self.serve(service(folder(self)), Other)
        await runner.containers[0].stop()
        self.assertEqual(parse(self.peer().get("/assets/app.js"))[0], 503)
        self.assertEqual(self.peer().get("/other"), text("200 OK", "other"))


class Big(TestCase):
    """Longer files, with sockets."""

    async def test_big(self) -> None:
        """A file of several pieces arrives whole, or the part that is asked for; and it is closed."""
        root = folder(self)
        async with run_services({"WEB_SERVER_ADDRESS": "0"}, service(root)) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            part = b"Range: bytes=65000-131000\r\n"
            for headers, expected in ((b"", BIG), (part, BIG[65000:131001]), (b"If-None-Match: *\r\n", b"")):
                head = b"GET /assets/big.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%b\r\n" % headers
                _, _, body = parse(await converse(port, head))
                self.assertEqual(body, expected)
        with open(os.path.join(root, "big.bin"), "rb") as file:
            for number in os.listdir("/proc/self/fd"):
                if int(number) != file.fileno() and os.path.exists(f"/proc/self/fd/{number}"):
                    self.assertFalse(os.path.sameopenfile(int(number), file.fileno()), "it is still open")


class Paths(SynchronousTestCase):
    """Any path at all."""

    def setUp(self) -> None:
        self.static = Static("/assets", "x")
        self.static.root = os.path.realpath(folder(self))

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                ["..", ".", "", "sub", "etc", "beside", "secret.txt", "app.js", "root", "loop", "\0", "\\", "~"]
            ),
            max_size=8,
        )
    )
    def test_any(self, parts: list[str]) -> None:
        """What is opened is a file inside the folder."""
        try:
            opened = self.static.open("/" + "/".join(parts))
        except NotFound:
            return
        if opened is not None:
            os.close(opened[0])
            self.assertTrue(opened[1].startswith(self.static.root + os.sep))

    def test_types(self) -> None:
        """Types go by the name; what nobody knows, and what is packed, is bytes."""
        for name, expected in [
            ("a.css", "text/css; charset=utf-8"),
            ("A.HTML", "text/html; charset=utf-8"),
            ("a.woff2", "font/woff2"),
            ("a.png", "image/png"),
            ("a.tar.gz", "application/octet-stream"),
            ("a.unknown", "application/octet-stream"),
            ("a", "application/octet-stream"),
        ]:
            self.assertEqual(type_of(name), expected)
