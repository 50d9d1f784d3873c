"""Who a request is from behind proxies: what they say is believed, and what clients say is not."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.observing import hearing
from tests.web.peer import WebTestCase
from txservices.web.forwarded import HOPS_MAX, Forwarded, Trusted, address_in
from txservices.web.handlers import http

TRUSTED = ["10.0.0.0/8", "fd00::/8"]


class Transport:
    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def getPeer(self) -> Any:
        return self.peer


class Received:
    """A request, as far as it is looked at."""

    scheme = "http"
    client: Any

    def __init__(self, peer: Any, headers: dict[str, Any]) -> None:
        self.channel = type("Channel", (), {"transport": Transport(peer)})
        lists = {name: each if isinstance(each, list) else [each] for name, each in headers.items()}
        self.requestHeaders = Headers({"Host": ["here"], **lists})


def peer_at(host: str) -> Any:
    return IPv6Address("TCP", host, 1) if ":" in host else IPv4Address("TCP", host, 1)


class Hops(SynchronousTestCase):
    """What is made of the headers."""

    def seen(
        self, headers: dict[str, Any], peer: Any = "10.0.0.1", trusted: Any = TRUSTED, x: bool = True
    ) -> tuple[Any, str, str]:
        received = Received(peer_at(peer) if isinstance(peer, str) else peer, headers)
        Forwarded(Trusted(trusted), x).see(received)
        host = received.requestHeaders.getRawHeaders("host", [])
        return getattr(received.client, "host", None), received.scheme, ",".join(host)

    def test_x_forwarded(self) -> None:
        """The rightmost address that is no trusted proxy's is the client; scheme and host are those of that hop."""
        table: list[tuple[dict[str, Any], tuple[Any, str, str]]] = [
            ({}, ("10.0.0.1", "http", "here")),
            ({"X-Forwarded-For": "192.0.2.7"}, ("192.0.2.7", "http", "here")),
            ({"X-Forwarded-For": "1.1.1.1, 192.0.2.7"}, ("192.0.2.7", "http", "here")),
            ({"X-Forwarded-For": "1.1.1.1, 192.0.2.7, 10.0.0.9"}, ("192.0.2.7", "http", "here")),
            ({"X-Forwarded-For": "10.0.0.8, 10.0.0.9"}, ("10.0.0.8", "http", "here")),
            ({"X-Forwarded-For": ["1.1.1.1", "192.0.2.7"]}, ("192.0.2.7", "http", "here")),
            ({"X-Forwarded-For": "evil, 10.0.0.9"}, ("10.0.0.9", "http", "here")),
            ({"X-Forwarded-For": "192.0.2.7, unknown"}, ("10.0.0.1", "http", "here")),
            ({"X-Forwarded-For": "[2001:db8::1]:443"}, ("2001:db8::1", "http", "here")),
            ({"X-Forwarded-For": "2001:DB8::1"}, ("2001:db8::1", "http", "here")),
            ({"X-Forwarded-For": "192.0.2.7:99"}, ("192.0.2.7", "http", "here")),
            ({"X-Forwarded-For": '192.0.2.7" x'}, ("10.0.0.1", "http", "here")),
            ({"X-Forwarded-Proto": "https"}, ("10.0.0.1", "https", "here")),
            ({"X-Forwarded-Proto": "HTTPS", "X-Forwarded-For": "192.0.2.7"}, ("192.0.2.7", "https", "here")),
            ({"X-Forwarded-Proto": "javascript"}, ("10.0.0.1", "http", "here")),
            (
                {"X-Forwarded-For": "192.0.2.7, 10.0.0.9", "X-Forwarded-Proto": "https, http"},
                ("192.0.2.7", "https", "here"),
            ),
            ({"X-Forwarded-Host": "shop.example:8443"}, ("10.0.0.1", "http", "shop.example:8443")),
            ({"X-Forwarded-Host": "evil/path"}, ("10.0.0.1", "http", "here")),
            ({"X-Forwarded-Host": ""}, ("10.0.0.1", "http", "here")),
            ({"Forwarded": "for=192.0.2.7"}, ("10.0.0.1", "http", "here")),  # the other header
        ]
        for headers, expected in table:
            self.assertEqual(self.seen(headers), expected, headers)

    def test_forwarded(self) -> None:
        """RFC 7239's examples, and worse."""
        table: list[tuple[str, tuple[Any, str, str]]] = [
            ("for=192.0.2.60;proto=http;by=203.0.113.43", ("192.0.2.60", "http", "here")),
            ('For="[2001:db8:cafe::17]:4711";Proto=https;host=a.example', ("2001:db8:cafe::17", "https", "a.example")),
            ("for=192.0.2.43, for=198.51.100.17", ("198.51.100.17", "http", "here")),
            ("for=192.0.2.43;proto=https, for=10.1.1.1;proto=http", ("192.0.2.43", "https", "here")),
            ('for="_gazonk"', ("10.0.0.1", "http", "here")),
            ("for=unknown, for=10.1.1.1", ("10.1.1.1", "http", "here")),
            ('for="192.0.2.1, for=192.0.2.2', ("192.0.2.2", "http", "here")),  # a client has left a quote open
            ('for="x, for="[2001:db8::1]"', ("2001:db8::1", "http", "here")),
            ('for="1.1.1.1;proto="https, for=192.0.2.2', ("192.0.2.2", "http", "here")),
            ('for="a,b";host="c,d", for=192.0.2.9', ("192.0.2.9", "http", "here")),
            (";;;=,,=", ("10.0.0.1", "http", "here")),
            ("", ("10.0.0.1", "http", "here")),
        ]
        for text, expected in table:
            self.assertEqual(self.seen({"Forwarded": text}, x=False), expected, text)
        self.assertEqual(self.seen({"X-Forwarded-For": "192.0.2.7"}, x=False)[0], "10.0.0.1")

    def test_untrusted(self) -> None:
        """Nothing that comes from elsewhere is believed."""
        headers = {"X-Forwarded-For": "1.1.1.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}
        self.assertEqual(self.seen(headers, "192.0.2.1"), ("192.0.2.1", "http", "here"))
        self.assertEqual(self.seen(headers, trusted=[]), ("10.0.0.1", "http", "here"))
        self.assertEqual(self.seen(headers, UNIXAddress(None)), (None, "http", "here"))
        self.assertEqual(self.seen(headers, UNIXAddress(None), ["unix"]), ("1.1.1.1", "https", "evil"))
        self.assertEqual(self.seen(headers, "fd00::1"), ("1.1.1.1", "https", "evil"))
        self.assertEqual(self.seen(headers, "::ffff:10.0.0.1"), ("1.1.1.1", "https", "evil"))

    def test_long(self) -> None:
        """No more than HOPS_MAX hops are followed, however long the header is."""
        for name, x in (("X-Forwarded-For", True), ("Forwarded", False)):
            one = "10.0.0.9" if x else "for=10.0.0.9"
            client = "192.0.2.7" if x else "for=192.0.2.7"
            self.assertEqual(self.seen({name: ", ".join([client, *[one] * (HOPS_MAX - 1)])}, x=x)[0], "192.0.2.7")
            self.assertEqual(self.seen({name: ", ".join([client, *[one] * 1_500])}, x=x)[0], "10.0.0.9")

    def test_addresses(self) -> None:
        """A node's name is an address, or nothing."""
        for text in ("", "x", "999.1.1.1", "1.2.3", "[::1", "::g", "1.1.1.1:x", "\u0661.1.1.1", ":" * 100):
            self.assertIsNone(address_in(text), text)


class Seen(WebTestCase):
    """What a method sees."""

    async def test_request(self) -> None:
        """Address, scheme and host of the request, in the redirect that completes a slash, and in the access log."""

        class Service:
            name = "service"

            @http("GET", "/told")
            def told(self, request):
                return f"{request.remote_addr} {request.url} {request.is_secure}"

            @http("GET", "/slash/")
            def slash(self, request):
                return ""

        observer = hearing(self, "request_ended")
        await self.serve(Service, WEB_TRUSTED_PROXIES=["192.168.1.1"], WEB_BODY_MAX=10)  # the peer's address in memory
        headers = ("X-Forwarded-For: 198.51.100.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example")
        answer = self.peer().get("/told", *headers).decode()
        self.assertTrue(answer.endswith("198.51.100.9 https://shop.example/told True"), answer)
        answer = self.peer().get("/slash", *headers).decode()
        self.assertIn("Location: https://shop.example/slash/\r\n", answer)
        answer = self.peer().get("/told").decode()
        self.assertTrue(answer.endswith("192.168.1.1 http://here:8000/told False"), answer)
        self.peer().get("/told", *headers, method="POST", body="longer than ten bytes")
        schemes = [(status, scheme) for _, _, _, status, _, scheme in observer.told]
        self.assertEqual(schemes, [(200, "https"), (308, "https"), (200, "http"), (413, "https")])
