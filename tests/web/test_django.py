"""Django under a prefix: a project of one file, as its users write it, served by Mount."""

from __future__ import annotations

import json
import logging
from functools import cache
from threading import Barrier
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from tests.web.peer import Conversation
from tests.web.test_mounts import ask
from txservices.runners import run_services
from txservices.web.handlers import http
from txservices.web.mounts import Mount

FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=b"
UPLOAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--b--\r\n'
ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) SELECT i FROM n"

together = Barrier(2)  # two streams that make their rows at the same time


@cache
def application() -> Any:
    """The project. It is made when a test wants it: Django takes a while to be imported."""
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path, reverse
    from django.views.decorators.csrf import csrf_exempt

    def echo(request: Any) -> Any:
        files = {name: each.read().decode() for name, each in request.FILES.items()}
        return JsonResponse({"form": request.POST.dict(), "files": files, "url": request.build_absolute_uri()})

    def guarded(request: Any) -> Any:
        return HttpResponse("never")

    def length(request: Any) -> Any:
        return HttpResponse(str(len(request.body)))

    def visits(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return HttpResponse(str(request.session["visits"]))

    async def waits(request: Any) -> Any:
        return HttpResponse("async")

    def rows(request: Any) -> Any:
        """A stream whose rows come from a database while it is sent, each with a URL that Django makes."""

        def pieces() -> Any:
            with connection.cursor() as cursor:
                for (number,) in cursor.execute(ROWS):
                    if "together" in request.GET:
                        together.wait(30)
                    yield f"{number} {reverse('rows')} {'x' * 10_000}\n"

        return StreamingHttpResponse(pieces(), content_type="text/plain")

    def file(request: Any) -> Any:
        return FileResponse(open(__file__, "rb"))

    def bug(request: Any) -> Any:
        raise ValueError("s3cret")

    class Urls:
        urlpatterns = [
            *(path(f"{view.__name__}/", csrf_exempt(view), name=view.__name__) for view in (echo, length)),
            *(
                path(f"{view.__name__}/", view, name=view.__name__)
                for view in (guarded, visits, waits, rows, file, bug)
            ),
        ]

    logging.getLogger("django").addHandler(logging.NullHandler())
    middleware = ["sessions.middleware.Session", "middleware.common.Common", "middleware.csrf.CsrfView"]
    folders = ["django.contrib.", "django.", "django."]
    settings.configure(
        SECRET_KEY="a secret of this test alone",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=Urls,
        MIDDLEWARE=[f"{folder}{name}Middleware" for folder, name in zip(folders, middleware, strict=True)],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        LOGGING_CONFIG=None,
    )
    django.setup()
    return get_wsgi_application()


def serve() -> Any:
    """Services with it, for ``async with``."""

    class Shop:
        name = "shop"
        admin = Mount("/admin", wsgi=application(), threads=4)

        @http("GET", "/admin/own")
        def own(self, request: Any) -> str:
            return "own"

    return run_services({"WEB_SERVER_ADDRESS": "127.0.0.1:0"}, Shop)


def port_of(runner: Any) -> int:
    port: int = runner.containers[0].entrypoints[0].server.port
    return port


class Django(TestCase):
    """The real one, with sockets and threads."""

    async def test_views(self) -> None:
        """Forms, uploads, JSON, files, sessions, views that await, CSRF, redirects and errors, as Django has them."""
        async with serve() as runner:
            port = port_of(runner)
            url = "http://here/admin/echo/?q=1"
            chunked = "Transfer-Encoding: chunked"
            table: list[tuple[str, str, tuple[str, ...], bytes, str, Any]] = [
                ("GET", "/waits/", (), b"", "200", b"async"),
                ("GET", "/waits", (), b"", "301", None),
                ("GET", "/nowhere/", (), b"", "404", None),
                ("GET", "/bug/", (), b"", "500", None),
                ("GET", "/own", (), b"", "200", b"own"),
                ("POST", "/echo/", (FORM,), b"a=%C3%B8", "200", {"form": {"a": "ø"}, "files": {}}),
                ("POST", "/echo/?q=1", (MULTIPART,), UPLOAD, "200", {"files": {"file": "hello"}, "url": url}),
                ("POST", "/guarded/", (FORM,), b"a=b", "403", None),
                ("POST", "/length/", (), b"x" * 1_000_000, "200", b"1000000"),
                ("POST", "/length/", (chunked,), b"3\r\nabc\r\n0\r\n\r\n", "200", b"3"),
                ("HEAD", "/rows/", (), b"", "200", b""),
                ("HEAD", "/file/", (), b"", "200", b""),
            ]
            for method, path, headers, body, status, expected in table:
                found, head, got = await ask(port, f"/admin{path}", *headers, method=method, body=body)
                with self.subTest(method=method, path=path):
                    self.assertEqual(found, status, got)
                    self.assertNotIn(b"s3cret", got)
                    if isinstance(expected, dict):
                        said = json.loads(got)
                        self.assertEqual({name: said[name] for name in expected}, expected)
                    elif expected is not None:
                        self.assertEqual(got, expected)
                    if status == "301":
                        self.assertIn("\r\nLocation: /admin/waits/\r\n", head)
            with open(__file__, "rb") as file:
                self.assertEqual((await ask(port, "/admin/file/"))[2], file.read())
            cookie = ""
            for visit in (b"1", b"2", b"3"):
                _, head, got = await ask(port, "/admin/visits/", *([f"Cookie: {cookie}"] if cookie else []))
                self.assertEqual(got, visit)
                cookie = head.partition("Set-Cookie: ")[2].partition(";")[0]

    async def test_streams(self) -> None:
        """Streams of rows from its database, several at once: each is whole, and its URLs have the prefix."""
        whole = "".join(f"{number} /admin/rows/ {'x' * 10_000}\n" for number in range(1, 41)).encode()
        async with serve() as runner:
            port = port_of(runner)
            for count, query in ((2, "?together"), (8, "")):
                asking = [Deferred.fromCoroutine(ask(port, f"/admin/rows/{query}")) for _ in range(count)]
                for status, _, got in await gatherResults(asking):
                    self.assertEqual(status, "200")
                    self.assertTrue(got == whole, got[-100:])

    async def test_clients_that_leave(self) -> None:
        """A client that leaves in the middle of a stream gives its thread back."""
        async with serve() as runner:
            port = port_of(runner)
            for _ in range(6):  # there are four threads
                talk = Conversation(b"GET /admin/rows/ HTTP/1.1\r\nHost: h\r\n\r\n")
                await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), talk)
                await talk.begun
                talk.transport.abortConnection()
                await talk.closed
            self.assertEqual((await ask(port, "/admin/waits/"))[2], b"async")
