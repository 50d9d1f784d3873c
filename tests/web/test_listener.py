"""The address and its URLs: how it opens, and how it ends."""

from __future__ import annotations

import errno
import socket
import threading
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import TestCase

from tests.web.peer import Service, WebTestCase, converse, text
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner, run_services
from txservices.utils.address import cannot_listen
from txservices.web.handlers import http

UNAVAILABLE = (
    b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nRetry-After: 5\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 42\r\nDate: now\r\nConnection: close\r\n\r\nError: the service is stopping, try again\n"
)


class Ending(WebTestCase):
    """Stopping, one service or all."""

    async def test_worker_still_answers(self) -> None:
        """A request under way is answered, and closes; another one is told to come back; then all is closed."""
        runner = await self.serve(Service)
        working, other, idle = self.peer(), self.peer(), self.peer()
        working.get("/wait")
        stopping = runner.stop()
        self.assertEqual(other.get("/number/1"), UNAVAILABLE)
        self.assertFalse(other.transport.connected)
        self.assertNoResult(stopping)
        self.assertTrue(idle.transport.connected)
        Service.waiting.callback("answered")
        self.assertEqual(working.received(), text("200 OK", "answered", after="Connection: close"))
        self.assertFalse(working.transport.connected)
        await stopping
        self.assertFalse(idle.transport.connected)

    async def test_given_up(self) -> None:
        """A worker that does not end in time leaves its request answered 503."""
        runner = await self.serve(Service, SHUTDOWN_TIMEOUT=3)
        peer = self.peer()
        peer.get("/wait")
        stopping = runner.stop()
        self.reactor.advance(3)
        await stopping
        self.assertEqual(peer.received(), UNAVAILABLE)

    async def test_killed(self) -> None:
        """So does a kill."""
        runner = await self.serve(Service)
        peer = self.peer()
        peer.get("/wait")
        await runner.kill()
        self.assertEqual(peer.received(), UNAVAILABLE)

    async def test_one_of_two(self) -> None:
        """One service stops: its URLs answer 503 and the other's go on; it may come back."""

        class Other:
            name = "other"

            @http("GET", "/other")
            def method(self, request):
                return "other"

        runner = await self.serve(Service, Other)
        await runner.containers[1].stop()
        self.assertEqual(self.peer().get("/other"), UNAVAILABLE)
        peer = self.peer()
        self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        runner.add_service(Other)
        self.assertEqual(peer.get("/other"), text("200 OK", "other"))
        self.assertEqual(peer.get("/number/1"), text("200 OK", "1"))
        self.assertEqual(len(self.reactor.tcpServers), 1)


class OnTheNetwork(TestCase):
    """With sockets."""

    async def test_any_port(self) -> None:
        """Port 0 is any free one, and the server says which."""
        async with run_services({"WEB_SERVER_ADDRESS": 0}, Service) as runner:
            (entrypoint, *_) = runner.containers[0].entrypoints
            self.assertNotEqual(entrypoint.server.port, 0)
            answer = await converse(entrypoint.server.port, b"GET /number/1 HTTP/1.0\r\n\r\n")
        self.assertEqual(answer, text("200 OK", "1", after="Connection: close"))

    async def test_blocking(self) -> None:
        """A blocking method runs in a thread, and reads the request there."""

        class Blocking:
            name = "blocking"
            blocking = True

            @http("POST", "/")
            def method(self, request):
                return f"{request.get_data(as_text=True)} {threading.current_thread() is threading.main_thread()}"

        async with run_services({"WEB_SERVER_ADDRESS": 0}, Blocking) as runner:
            port = runner.containers[0].entrypoints[0].server.port
            answer = await converse(port, b"POST / HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody")
        self.assertEqual(answer, text("200 OK", "body False", after="Connection: close"))

    async def test_port_taken(self) -> None:
        """A port that is taken is the user's to mend: the error says which, and what to do."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]  # noqa: UP031
            runner = ServiceRunner({"WEB_SERVER_ADDRESS": address})
            runner.add_service(Service)
            error = await self.assertFailure(runner.start(), ConfigurationError)
        self.assertIn(f"can't listen at {address}: ", str(error))
        self.assertIn("set WEB_SERVER_ADDRESS to another", str(error))


class Listening(WebTestCase):
    """Where it can't."""

    async def test_names_the_reason(self) -> None:
        """The system's own words are in the error, and what to do about them."""
        for number, cure in (
            (errno.EACCES, "a port below 1024 takes root, or CAP_NET_BIND_SERVICE"),
            (errno.EADDRINUSE, "end the program there"),
            (errno.EADDRNOTAVAIL, "this machine has no such address: write 0.0.0.0 for all that it has"),
            (errno.EMFILE, "see the host and the port"),
        ):
            denied = CannotListenError("127.0.0.1", 80, OSError(number, "in words"))
            with mock.patch.object(self.reactor, "listenTCP", side_effect=denied):
                starting = Deferred.fromCoroutine(self.serve(Service, WEB_SERVER_ADDRESS="127.0.0.1:80"))
                error = await self.assertFailure(starting, ConfigurationError)
            self.assertIn(f"can't listen at 127.0.0.1:80: [Errno {number}] in words: {cure}", str(error))
        told = cannot_listen(CannotListenError("::1", 80, OSError(errno.EADDRINUSE, "in words")))
        self.assertIn("can't listen at [::1]:80: ", told)
