"""Where HTTP listens: IPv6, several addresses, Twisted's endpoints, HTTPS, and the PROXY protocol."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests import processes
from tests.observing import hearing
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner
from txservices.web.addresses import Files, Place, places_of
from txservices.web.handlers import http
from txservices.web.listener import facing
from txservices.web.websocket import rpc


class Service:
    name = "service"

    @http("GET", "/told")
    def told(self, request: Any) -> str:
        return f"{request.remote_addr} {request.scheme}"

    @rpc
    def echo(self, socket_id: str, value: str) -> str:
        return value


class Talk(Protocol):
    """Sends bytes, and keeps what comes until the other side closes."""

    certificate: Any = None
    negotiated: Any = None

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.closed: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if hasattr(self.transport, "getPeerCertificate"):
            self.certificate = self.transport.getPeerCertificate()
            self.negotiated = self.transport.negotiatedProtocol

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.received)


GET = b"GET /told HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Case(TestCase):
    timeout = 120

    async def serve(self, *addresses: Any, **config: Any) -> list[Any]:
        """A service at these addresses. Gives the ports."""
        one = addresses[0] if len(addresses) == 1 else list(addresses)
        self.runner = ServiceRunner({"WEB_SERVER_ADDRESS": one, **config})
        self.runner.add_service(Service)
        self.addCleanup(self.runner.stop)
        await self.runner.start()
        listener = self.runner.containers[0].entrypoints[0].server.listener
        return [listener.listening, *listener.others]

    async def ask(
        self, to: str, before: bytes = b"", authority: Any = None, offered: list[bytes] | None = None
    ) -> Talk:
        """The conversation at an endpoint of a client, which offers these protocols over TLS."""
        endpoint = clientFromString(reactor, to)
        if authority is not None:
            trusted = trustRootFromCertificates([Certificate.loadPEM(authority.cert_pem.bytes())])
            endpoint = wrapClientTLS(optionsForClientTLS("localhost", trusted, acceptableProtocols=offered), endpoint)
        talk = Talk(before + GET)
        await connectProtocol(endpoint, talk)
        await talk.closed
        return talk


class Open(Case):
    """Ports that are real."""

    def body(self, talk: Talk) -> str:
        return talk.received.decode().partition("\r\n\r\n")[2]

    async def test_several(self) -> None:
        """IPv4, IPv6, and a socket in the file system at once, all closed by the stop."""
        folder = tempfile.TemporaryDirectory()  # trial's own may be too long for a socket's path
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "socket")
        ports = await self.serve("127.0.0.1:0", "[::1]:0", f"unix:{path}", "tcp:0:interface=127.0.0.1")
        four, six, _, endpoint = (getattr(each.getHost(), "port", 0) for each in ports)
        self.assertEqual(self.body(await self.ask(f"tcp:127.0.0.1:{four}")), "127.0.0.1 http")
        self.assertEqual(self.body(await self.ask(f"tcp:\\:\\:1:{six}")), "::1 http")
        self.assertEqual(self.body(await self.ask(f"unix:{path}")), "None http")
        self.assertEqual(self.body(await self.ask(f"tcp:127.0.0.1:{endpoint}")), "127.0.0.1 http")
        await self.runner.stop()
        self.assertFalse(os.path.exists(path))

    async def test_one_of_several_is_taken(self) -> None:
        """If one can't be opened the start fails, says which, and the others are closed again."""
        (taken,) = await self.serve("127.0.0.1:0")
        number = taken.getHost().port
        other = ServiceRunner({"WEB_SERVER_ADDRESS": ["127.0.0.1:0", f"127.0.0.1:{number}"]})
        other.add_service(Service)
        self.addCleanup(other.stop)
        with self.assertRaisesRegex(ConfigurationError, f"can't listen at 127.0.0.1:{number}"):
            await other.start()

    async def test_mistakes(self) -> None:
        """An endpoint's string with a mistake is told with the key and the string."""
        for text, words in (
            ("ssl:0:privateKey=/nowhere", "No such file"),
            ("ssl:0:privatekey=/nowhere", "there is no privatekey"),
            ("unix:/nowhere/at/all/x", "can't listen|No such file"),
            ("systemd:domain=INET:index=x", "systemd"),
            ("tcp:x", "tcp:x"),
            ("haproxy:tcp:0", "WEB_TRUSTED_PROXIES"),
        ):
            with self.assertRaisesRegex(ConfigurationError, f"WEB_SERVER_ADDRESS.*({words})|({words}).*WEB_SERVER"):
                await self.serve(text)
            await self.runner.stop()

    async def test_https(self) -> None:
        """HTTPS and a WebSocket over TLS, with a certificate from a file; nonsense is 400, and HTTP/2 not chosen."""
        authority = trustme.CA()
        folder = self.mktemp()
        os.mkdir(folder)
        key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")

        def write() -> Any:
            issued = authority.issue_cert("localhost")
            issued.private_key_pem.write_to_path(key)
            with open(certificate, "wb") as file:
                file.write(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
            return Certificate.loadPEM(issued.cert_chain_pems[0].bytes()).digest()

        first = write()
        (port,) = await self.serve(f"ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1")
        to = f"tcp:127.0.0.1:{port.getHost().port}"
        told = hearing(self, "request_ended")
        talk = await self.ask(to, authority=authority)
        self.assertTrue(talk.received.endswith(b"127.0.0.1 https"), talk.received)
        self.assertEqual([(status, scheme) for _, _, _, status, _, scheme in told.told], [(200, "https")])
        self.assertEqual(Certificate(talk.certificate).digest(), first)
        talk = await self.ask(to, WEBSOCKET + b"\x88\x80\0\0\0\0", authority)
        self.assertTrue(talk.received.startswith(b"HTTP/1.1 101 "), talk.received)
        self.assertIn(b'"connected"', talk.received)
        talk = await self.ask(to, b"no request\r\n\r\n", authority)
        self.assertTrue(talk.received.startswith(b"HTTP/1.1 400 "), talk.received)
        self.assertEqual(told.told[-1][-1], "https")
        talk = await self.ask(to, authority=authority, offered=[b"h2", b"http/1.1"])
        self.assertEqual((talk.negotiated, talk.received[:13]), (b"http/1.1", b"HTTP/1.1 200 "))
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_proxy_protocol(self) -> None:
        """Behind a proxy that speaks it, the address is the client's; who is not trusted is cut off."""
        (port,) = await self.serve("haproxy:tcp:0:interface=127.0.0.1", WEB_TRUSTED_PROXIES=["127.0.0.0/8"])
        to = f"tcp:127.0.0.1:{port.getHost().port}"
        head = b"PROXY TCP4 198.51.100.9 127.0.0.1 5000 80\r\n"
        self.assertEqual(self.body(await self.ask(to, head)), "198.51.100.9 http")
        self.assertEqual((await self.ask(to)).received, b"")
        await self.runner.stop()
        (port,) = await self.serve("haproxy:tcp:0:interface=127.0.0.1", WEB_TRUSTED_PROXIES=["10.0.0.0/8"])
        with capturedLogs() as logged:
            self.assertEqual((await self.ask(f"tcp:127.0.0.1:{port.getHost().port}", head)).received, b"")
        told = [formatEvent(each) for each in logged if "cut off" in (formatEvent(each) or "")]
        self.assertEqual(len(told), 1, told)


class BySystemd(Case):
    """Processes that are given their socket."""

    def run_with(self, listening: socket.socket, *which: str) -> processes.Process:
        """A process with that socket; ``which`` says how its endpoint names it."""
        define = [f"--define=WEB_SERVER_ADDRESS={':'.join(('systemd', *which))}"]
        return processes.by_systemd(self, listening.fileno(), "run", "http", *define, cwd=processes.EXAMPLES)

    async def test_restart(self) -> None:
        """It serves there, and who connects while it is away is answered by the next process."""
        request = b"GET /get/42 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            for which in (("domain=INET", "index=0"), ("domain=INET", "name=web")):
                talk = Talk(request)
                await connectProtocol(clientFromString(reactor, f"tcp:127.0.0.1:{port}"), talk)
                running = self.run_with(listening, *which)
                await running.line(f"listening at http://127.0.0.1:{port}/")
                answer = await talk.closed.addTimeout(processes.DEADLINE, reactor)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
                await processes.stopped(running)

    async def test_none_given(self) -> None:
        """A process that was given no such socket says so."""
        for text in ("systemd:domain=INET:index=0", "systemd:domain=INET:name=web"):
            with self.assertRaisesRegex(ConfigurationError, f"{text}: systemd has given this process no such socket"):
                await self.serve(text)
            await self.runner.stop()


class Read(SynchronousTestCase):
    """Addresses as they are written, and the files of a certificate."""

    def test_places(self) -> None:
        """host:port as nameko has it, and the strings of endpoints."""
        self.assertEqual(places_of("a:1"), [Place("a:1", "a", 1)])
        self.assertEqual(places_of([80, "[::]:81"]), [Place("127.0.0.1:80", "127.0.0.1"), Place(":::81", "::")])
        self.assertEqual(places_of("unix:/x"), [Place("unix:/x")])
        self.assertEqual([place.shown() for place in places_of(["a:1", "[::1]:2", "unix:/x"])],
                         ["http://a:1/", "http://[::1]:2/", "unix:/x"])  # fmt: skip
        table: list[tuple[list[Any], tuple[str, int]]] = [
            ([80], ("127.0.0.1", 80)),
            ([80, "h:81"], ("h", 81)),
            (["unix:/x"], ("0.0.0.0", 0)),
        ]
        for value, expected in table:
            self.assertEqual(facing(places_of(value)), expected)

    def test_files(self) -> None:
        """Changed files are read again; if they can't be read, the log says so once and the old ones stay."""
        authority, clock = trustme.CA(), Clock()
        path = self.mktemp()

        def write(text: bytes) -> None:
            with open(path, "wb") as file:
                file.write(text)

        def issue() -> bytes:
            pem: bytes = authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
            return pem

        write(issue())
        files = Files(path, path, None, clock.seconds)
        first = files.context
        files.serverConnectionForTLS(None)
        self.assertIs(files.context, first)
        write(issue() + b"\n")
        files.serverConnectionForTLS(None)
        self.assertIs(files.context, first)  # it is not looked at each time
        clock.advance(1)
        files.serverConnectionForTLS(None)
        second = files.context
        self.assertIsNot(second, first)
        for bad in (b"", b"rubbish", issue().replace(b"M", b"N"), issue().split(b"-----BEGIN CERT")[0]):
            write(bad)
            clock.advance(1)
            with capturedLogs() as logged:
                files.serverConnectionForTLS(None)
                clock.advance(1)
                files.serverConnectionForTLS(None)
            self.assertIs(files.context, second)
            told = [formatEvent(each) for each in logged]
            self.assertEqual(len(told), 1)
            self.assertIn("those from before stay", told[0] or "")
        os.remove(path)
        clock.advance(1)
        files.serverConnectionForTLS(None)
        self.assertIs(files.context, second)
        write(issue())
        clock.advance(1)
        files.serverConnectionForTLS(None)
        self.assertIsNot(files.context, second)
