"""The incidents of somebody on call: for each the very line that tells it, at the process that is looked at."""

from __future__ import annotations

import errno
import sys
from datetime import datetime, timezone
from typing import Any

import trustme
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import TestCase

from tests.command.inside import InsideCase, Typed
from tests.rabbitmq import free_port
from txservices import lines
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.broker.server import Broker, Sessions

SHOP = """
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet import reactor
from twisted.logger import Logger
from txservices.events import EventDispatcher
from txservices.extensions import DependencyProvider
from txservices.messaging import Queue, consume
from txservices.rpc import rpc

log = Logger()

class Stock(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return deferLater(reactor, 0.1) if worker_ctx.entrypoint.method_name == "buy" else None

class Shop:
    name = "shop"
    stock = Stock()
    dispatch = EventDispatcher()
    hanging = []

    @rpc
    def sell(self): return "sold"

    @rpc
    def hang(self):
        self.hanging.append(Deferred())
        log.info("it hangs")
        return self.hanging[-1]

    @rpc
    def buy(self): return "bought"

    @rpc
    def tell(self): return self.dispatch("told", None)

    @consume(Queue("orders"), requeue_on_error=True)
    def order(self, order): raise ValueError(order)
"""
TIME = r"\d\d:\d\d:\d\d"
CALLER = r"standalone_rpc_proxy\.call\.\S+"


class Incidents(InsideCase, TestCase):
    """A service on a broker that is administered by the test, and calls of it."""

    def setUp(self) -> Any:
        super().setUp()
        self.module(SHOP)
        self.port = free_port()
        self.uri = f"amqp://ada:s3cret12@127.0.0.1:{self.port}/"
        self.address = rf"amqp://ada:\*{{8}}@127\.0\.0\.1:{self.port}/"
        self.broker = Broker("incidents", {"ada": "s3cret12"})
        self.addCleanup(lambda: self.broker.close())
        return self.broker.listen("127.0.0.1", self.port)

    async def shop(self, *options: str) -> Typed:
        running = self.typed("run", "shop", "--broker", self.uri, "--define", "SHUTDOWN_TIMEOUT=0.05", *options)
        await running.line("running: shop")
        return running

    def call(self, method: str, timeout: float = 60) -> Typed:
        return self.typed("call", "--broker", self.uri, "--define", f"RPC_TIMEOUT={timeout}", f"shop.{method}")

    async def called(self, method: str, status: int, pattern: str, timeout: float = 60) -> None:
        """A call ends with that line."""
        typed = self.call(method, timeout)
        self.assertEqual(await typed.ended, status, typed.text)
        self.assertRegex(typed.text.splitlines()[-1], rf"^{pattern}$")

    async def late(self, method: str, pattern: str) -> None:
        """A call that was sent ends with that line when its time is up."""
        timeout, text = 0.1, ""
        while "it was sent" not in text:  # on a slow machine, the time of the first is up before
            typed = self.call(method, timeout)
            self.assertEqual((await typed.ended, timeout < 60), (1, True), typed.text)
            text = typed.text.splitlines()[-1]
            timeout *= 4
        self.assertRegex(text, rf"^RpcTimeout: no reply within [\d.]+ s: it was sent, and {pattern}$")

    def admin(self) -> Connections:
        connections = Connections.from_config({"AMQP_URI": self.uri})
        connections.startService()
        self.addCleanup(connections.stopService)
        return connections

    def warned(self, running: Typed, text: str) -> Deferred[Any]:
        return running.line(rf"{TIME} (warn|error) txservices\.{text}")

    async def test_broker_dies(self) -> None:
        """The service says that it has lost its broker, when it tries again, and that it is back."""
        running = await self.shop()
        for session in list(self.broker.sessions):
            session.transport.abortConnection()
        await self.broker.close()
        lost = rf"amqp\.connection: no connection to the broker at {self.address} \(txservices: shop consumes\): "
        await self.warned(running, rf"{lost}Connection was refused by other side: .*\. Trying again in \d+\.\d s")
        self.broker = Broker("again", {"ada": "s3cret12"})
        running.text = ""
        await self.broker.listen("127.0.0.1", self.port)
        connected = rf"connected to the broker at {self.address} \(txservices: shop consumes\)"
        await running.line(rf"{TIME} info txservices\.amqp\.connection: {connected}")
        await self.called("sell", 0, '"sold"')

    async def test_password_changed(self) -> None:
        """A password that is right no longer is told, with what is waited for."""
        running = await self.shop()
        self.broker.users.passwords["ada"] = "another"
        for session in list(self.broker.sessions):
            session.transport.abortConnection()
        await self.warned(
            running,
            rf"amqp\.connection: no connection to the broker at {self.address} \(txservices: shop consumes\):"
            r" ACCESS_REFUSED .* \(code 403.*\): check user, password and virtual host of AMQP_URI, and the user's"
            r" permissions on the broker\. Trying again in 30\.0 s",
        )
        self.assertNotIn("s3cret12", running.text)

    async def test_memory_alarm(self) -> None:
        """A broker that takes no messages for now is told with its reason, and so is the end of that."""
        running = await self.shop()
        self.broker.watermark.most = 10_000
        admin = self.admin()
        await admin.publisher.declare(Queue("full"))
        await admin.publisher.publish("", "full", b"x" * 20_000, {})
        await self.called("sell", 0, '"sold"')  # the service publishes the reply
        told = rf"amqp\.protocol: the broker at {self.address} takes"
        await self.warned(running, rf"{told} no messages \(low on memory\): publishes wait, up to their deadlines")
        await admin.consume(Queue("full"), Message.ack, 1).ready
        await running.line(rf"{TIME} info txservices\.{told} messages again")

    async def test_queue_deleted(self) -> None:
        """A queue that somebody deletes is declared again, and the log says so."""
        running = await self.shop()
        channel = await (await self.admin().consuming.when_connected()).open_channel()
        await channel.queue_delete(queue="rpc-shop")
        await self.warned(running, r"amqp\.subscription: queue rpc-shop was deleted on the broker: declaring it again")
        await self.called("sell", 0, '"sold"')

    async def test_full_disk(self) -> None:
        """A service whose log can't be written runs on."""
        running = await self.shop()

        def write(text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        sys.stdout.write = running.write = write
        await self.called("sell", 0, '"sold"')

    async def test_hangs_at_the_stop(self) -> None:
        """A method that does not end is named, and its process ends with 1."""
        running = await self.shop()
        request = {"content_type": "application/json", "reply_to": "nobody", "headers": {}}
        await self.admin().publisher.publish("nameko-rpc", "shop.hang", b'{"args": [], "kwargs": {}}', request)
        await running.line(".*: it hangs")
        await running.stop()
        self.assertEqual(running.status, 1)
        self.assertRegex(
            running.text,
            rf"(?m)^{TIME} warn txservices\.containers: shop: 1 workers were running and 0 waiting after 0\.05 s"
            rf" and are"
            r" given up: their messages go back to their queues\. Running were shop\.hang for \d+\.\d s\b.*$",
        )

    async def test_pool_full(self) -> None:
        """A service all of whose workers are busy says so, with the methods that take them and who waits."""
        self.patch(lines, "BUSY_AFTER", 0.1)
        running = await self.shop("--define", "max_workers=2")
        calls = []
        for _ in range(2):
            running.text = ""
            calls.append(self.call("hang"))
            await running.line(".*: it hangs")
        calls.append(self.call("sell"))
        holder = r"shop\.hang for \d+\.\d s \[shop\.hang\.\S+ from \S+\]"
        busy = r"lines: all 2 workers of shop have been busy for \d+\.\d s, 1 calls wait, the first for \d+\.\d s\."
        await self.warned(running, rf"{busy} Oldest: {holder}, {holder}")
        for hanging in sys.modules["shop"].Shop.hanging:
            hanging.callback(None)
        self.assertEqual(await gatherResults([call.ended for call in calls]), [0, 0, 0])

    async def test_slow_dependency(self) -> None:
        """A dependency that takes long makes its worker a slow one, and its time limit cancels it."""
        running = await self.shop("--define", "SLOW_WORKER=0.05")
        await self.called("buy", 0, '"bought"')
        await self.warned(
            running,
            rf"busy \[shop\.buy\.\S+ from {CALLER}\]: slow: shop\.buy took \d+\.\d s, after \d+\.\d s of waiting for"
            rf" its turn",
        )

    async def test_limit_of_time(self) -> None:
        """A worker over its limit is cancelled, and both sides say so."""
        running = await self.shop("--define", "WORKER_TIMEOUT=0.05")
        await self.called("hang", 1, r"WorkerTimeout: the method took longer than 0\.05 s")
        await self.warned(
            running,
            rf"workers \[shop\.hang\.\S+ from {CALLER}\]: <WorkerContext \[shop\.hang\] at \S+> has taken 0\.05 s,"
            rf" its limit:"
            r" it is cancelled",
        )

    async def test_poison(self) -> None:
        """A message that can't be read is rejected, and one that fails again and again waits longer each time."""
        running = await self.shop()
        publisher = self.admin().publisher
        await publisher.publish("", "orders", b"{", {"content_type": "application/json"})
        await self.warned(
            running,
            r"amqp\.consume: shop\.order: <Message 1 of '' 'orders', 1 bytes> rejected: .*",
        )
        await publisher.publish("", "orders", b'"apples"', {"content_type": "application/json"})
        await self.warned(
            running,
            r"amqp\.returning \[shop\.order\.\S+\]: <Message \d of '' 'orders', 8 bytes> failed 2 times, and goes"
            r" back in 0\.1 s",
        )
        self.flushLoggedErrors(ValueError)

    async def test_callee_gone(self) -> None:
        """A call whose service does not run says that nobody consumes its queue."""
        await self.admin().publisher.declare(Queue("rpc-shop", Exchange("nameko-rpc", type="topic"), "shop.*"))
        await self.late(
            "sell",
            r"nobody consumes queue rpc-shop: start the service \(call of shop\.sell\)",
        )

    async def test_reply_late(self) -> None:
        """A call whose method takes too long says that the method still runs, or waited for a worker."""
        await self.shop()
        await self.late(
            "hang",
            r"queue rpc-shop has 1 consumer: its method still runs, or it has waited for a worker"
            r" \(the service's log names the methods that take them\) \(call of shop\.hang\)",
        )

    async def test_certificate_expired(self) -> None:
        """A certificate that has expired is what the service says it waits for."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=timezone.utc))
        own = ssl.PrivateCertificate.loadPEM(issued.private_key_and_cert_chain_pem.bytes())
        options = ssl.CertificateOptions(privateKey=own.privateKey.original, certificate=own.original)
        port: IListeningPort = await SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1").listen(
            Sessions(self.broker)
        )
        self.addCleanup(port.stopListening)
        self.write("ca.pem", authority.cert_pem.bytes().decode())
        uri = f"amqps://ada:s3cret12@localhost:{port.getHost().port}/"
        typed = self.typed("run", "shop", "--broker", uri, "--define", "AMQP_SSL={ca_certs: ca.pem}")
        self.assertEqual(await typed.ended, 2, typed.text)
        self.assertRegex(
            typed.text.splitlines()[-1],
            r"^Error: no connection to the broker at amqps://ada:\*{8}@localhost:\d+/: its certificate is not"
            r" trusted, or has"
            r" expired: if an authority of your own has signed it, name the authority's file in AMQP_SSL: ca_certs$",
        )

    async def test_two_versions(self) -> None:
        """The second version of a service, with another argument of a queue, does not start and says which."""
        await self.shop()
        self.module(SHOP.replace('Queue("orders")', 'Queue("orders", arguments={"x-max-length": 9})'))
        typed = self.typed("run", "shop", "--broker", self.uri)
        self.assertEqual(await typed.ended, 2, typed.text)
        self.assertRegex(
            typed.text.splitlines()[-1],
            r"^Error: queue 'orders' exists with other properties \(PRECONDITION_FAILED - inequivalent arg"
            r" 'x-max-length'"
            r" .*\): delete it on the broker, or declare it as it is there$",
        )
