"""Requests as a method has them, and what of its response is written to the wire."""

from __future__ import annotations

from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from tests.web.peer import WebTestCase, text
from txservices.web.handlers import http


class Requests(WebTestCase):
    """werkzeug's Request, as a method has it."""

    async def requested(self, path: str, *headers: str, method: str = "GET", body: str = "") -> Any:
        """The request that a method gets."""
        requests = []

        class Service:
            name = "service"

            @http("GET,POST", "/<path:path>")
            def method(self, request, path):
                requests.append(request)
                return ""

        await self.serve(Service)
        self.peer().get(path, *headers, method=method, body=body)
        return requests[0]

    async def test_parts(self) -> None:
        """args, form, json, cookies, headers, path values and the body are as in werkzeug."""
        request = await self.requested(
            "/%C3%A5%20b?q=1&q=2&e=",
            "Content-Type: application/x-www-form-urlencoded",
            "Cookie: a=1",
            "Cookie: b=2",
            "X-Twice: 1",
            "X-Twice: 2",
            "X_Spoofed: yes",
            method="POST",
            body="f=%C3%B8&g=",
        )
        self.assertEqual(request.path_values, {"path": "å b"})
        self.assertEqual(request.path, "/å b")
        self.assertEqual(request.args.to_dict(flat=False), {"q": ["1", "2"], "e": [""]})
        self.assertEqual(request.form.to_dict(), {"f": "ø", "g": ""})
        self.assertEqual(request.cookies.to_dict(), {"a": "1", "b": "2"})
        self.assertEqual(request.headers["X-Twice"], "1,2")
        self.assertNotIn("X-Spoofed", request.headers)
        self.assertEqual(request.host, "here:8000")
        self.assertEqual(request.remote_addr, "192.168.1.1")

    async def test_json(self) -> None:
        """JSON is parsed when it is asked for."""
        request = await self.requested("/x", "Content-Type: application/json", method="POST", body='{"a": [1]}')
        self.assertEqual(request.json, {"a": [1]})

    async def test_files(self) -> None:
        """A file of a multipart form is there with its name and content."""
        body = (
            "--b\r\nContent-Disposition: form-data; name=field\r\n\r\nvalue\r\n"
            '--b\r\nContent-Disposition: form-data; name=up; filename="a.txt"\r\n\r\ncontent\r\n--b--\r\n'
        )
        request = await self.requested("/x", "Content-Type: multipart/form-data; boundary=b", method="POST", body=body)
        self.assertEqual(request.form["field"], "value")
        self.assertEqual((request.files["up"].filename, request.files["up"].read()), ("a.txt", b"content"))
        request.close()

    async def test_stream(self) -> None:
        """The body is a file, also if there is none, and a method may set how long it may be."""

        class Bodies:
            name = "bodies"

            @http("POST", "/<int:most>")
            def method(self, request, most):
                request.max_content_length = most or None
                return request.stream.read()

        await self.serve(Bodies)
        peer = self.peer()
        for path, body, expected in (("/0", "body", b"body"), ("/0", "", b""), ("/4", "body", b"body")):
            self.assertTrue(peer.get(path, method="POST", body=body).endswith(b"\r\n\r\n" + expected), path)
        self.assertIn(b" 413 ", peer.get("/3", method="POST", body="body"))

    async def test_as_werkzeug_makes_it(self) -> None:
        """Every attribute that werkzeug's own Request sets is there, with the value that it would have."""
        request = await self.requested("/%C3%A5/x?q=1", "X-A: b", method="POST", body="body")
        environ = EnvironBuilder(
            "/å/x?q=1", "http://here:8000", method="POST", data=b"body", headers=Headers({"X-A": "b"})
        ).get_environ()
        environ.update(REMOTE_ADDR="192.168.1.1", SERVER_NAME="10.0.0.1", SERVER_PORT="12345")
        theirs = Request(environ, populate_request=False)
        for name in sorted(vars(theirs).keys() - {"environ", "headers"}):
            self.assertEqual(getattr(request, name), getattr(theirs, name), name)
        for name in ("url", "base_url", "full_path", "host_url", "content_length", "mimetype", "is_json", "values"):
            self.assertEqual(getattr(request, name), getattr(theirs, name), name)
        self.assertEqual(set(request.headers), set(theirs.headers))
        self.assertEqual(request.get_data(), theirs.get_data())


class Responses(WebTestCase):
    """The headers that a response may have."""

    async def test_no_header_injected(self) -> None:
        """A line's end in a status, a header's name or its value answers 500, and is not sent."""
        evil = "x\r\nEvil: yes"

        class Service:
            name = "service"
            results = [(f"200 {evil}", ""), (200, {evil: "x"}, ""), (200, {"X": evil}, ""), (200, {"X": "x\0"}, "")]

            @http("GET", "/<int:index>")
            def method(self, request, index):
                return self.results[index]

            @http("GET", "/response/<int:index>")
            def response(self, request, index):
                response = Response("")
                if index:
                    response.headers._list.append((evil, "x"))
                else:
                    response.status = f"200 {evil}"
                return response

        await self.serve(Service)
        peer = self.peer()
        for path in ("/0", "/1", "/2", "/3", "/response/0", "/response/1"):
            answer = peer.get(path)
            self.assertTrue(answer.startswith(b"HTTP/1.1 500 "), path)
            self.assertNotIn(b"Evil", answer)
        self.flushLoggedErrors(ValueError)

    async def test_framing_is_ours(self) -> None:
        """A length or transfer encoding that a method claims is not sent: the next response would begin elsewhere."""

        class Service:
            name = "service"

            @http("GET", "/")
            def method(self, request):
                return 200, {"Content-Length": "1", "Transfer-Encoding": "chunked"}, "four"

        await self.serve(Service)
        self.assertEqual(self.peer().get("/"), text("200 OK", "four"))
