"""Why there is no connection: other protocols on the broker's port, TLS on one side only, certificates that do not fit.

Each of these is one line with what to write, and ends a start at once.
"""

from __future__ import annotations

import os
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet import reactor, ssl
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests import rabbitmq
from tests.testing import managed
from txservices.amqp.causes import stranger, tls_cause
from txservices.amqp.connections import Connections
from txservices.amqp.endpoints import endpoint_for
from txservices.amqp.entities import Message, Queue
from txservices.amqp.protocol import Protocol as AmqpProtocol
from txservices.broker.server import Broker, Sessions
from txservices.exceptions import BrokerRefused, BrokerUnreachable, ConfigurationError
from txservices.utils.address import Address, parse_address

# what answers -> a part of the line
ANSWERS = {
    b"\x15\x03\x01\x00\x02\x02\n": "speaks TLS there: write amqps://",
    b"HTTP/1.1 400 Bad Request\r\n\r\n": "speaks HTTP there: write the port of AMQP",
    b"AMQP\x00\x01\x00\x00": "another version of AMQP, such as 1.0",
    b"AMQP\x03\x01\x00\x00": "another version of AMQP, such as 1.0",
    b"AMQP\x00\x00\x09\x01": "refuses AMQP 0-9-1",
    b"SSH-2.0-OpenSSH_9.2\r\n": "something that says b'SSH-2.0-OpenSSH_9.2\\r\\n'",
    b"220 mail.example.com ESMTP\r\n": "something that says b'220 mail.example.com",
    b"\x00" * 10: "something that says b'\\x00",
}


class Says(Protocol):
    """Says one thing and hangs up."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.text)
        self.transport.loseConnection()


class CausesCase(TestCase):
    """A port of the test's, and a connection to it."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)

    def path(self, name: str, *parts: Any) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(b"".join(part if isinstance(part, bytes) else part.bytes() for part in parts))
        return path

    async def listen(self, endpoint: Any, factory: Factory) -> int:
        listening = await endpoint.listen(factory)
        self.addCleanup(listening.stopListening)
        return int(listening.getHost().port)

    def connections(self, uri: str, **config: Any) -> Connections:
        connections = Connections.from_config({"AMQP_URI": uri, **config})
        connections.startService()
        self.addCleanup(connections.stopService)
        return connections

    async def refused(self, uri: str, **config: Any) -> str:
        """The line that ends a start."""
        consumer = self.connections(uri, **config).consume(Queue("q"), Message.ack, 1)
        error = await self.assertFailure(consumer.ready, BrokerRefused)
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertNotIn("s3cret", str(error))
        return str(error)


class Strangers(CausesCase):
    """Something else answers."""

    async def test_answers(self) -> None:
        """Each is told for what it is, with the address and without the password."""
        for answer, words in ANSWERS.items():
            factory = Factory.forProtocol(lambda answer=answer: Says(answer))
            port = await self.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), factory)
            line = await self.refused(f"amqp://u:s3cret@127.0.0.1:{port}/")
            self.assertIn(f"127.0.0.1:{port}", line)
            self.assertIn(words, line)

    async def test_no_answer(self) -> None:
        """A port that hangs up without a word may be a broker that starts: it is waited for, and told what may be."""
        factory = Factory.forProtocol(lambda: Says(b""))
        port = await self.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), factory)
        connections = self.connections(f"amqp://127.0.0.1:{port}/", BROKER_START_TIMEOUT=0.1)
        consumer = connections.consume(Queue("q"), Message.ack, 1)
        error = await self.assertFailure(consumer.ready, BrokerUnreachable)
        self.assertIn("ended before a word was said", str(error))

    async def test_tls_to_a_plain_port(self) -> None:
        """amqps:// to a broker without TLS."""
        broker = Broker("plain")
        self.addCleanup(broker.close)
        port = (await broker.listen("127.0.0.1", 0)).getHost().port
        self.assertIn(
            "speaks no TLS there: write amqp:// and leave out", await self.refused(f"amqps://localhost:{port}/")
        )

    def test_old_tls(self) -> None:
        """A broker with versions of TLS that are too old is told as such."""
        alert = SSL.Error([("SSL routines", "", "tlsv1 alert protocol version")])
        self.assertEqual(tls_cause(alert), "it knows only versions of TLS that are too old")

    def test_frames(self) -> None:
        """An answer that begins like a frame of AMQP is that of a broker."""
        self.assertIsNone(stranger(b"\x01\x00\x00\x00"))


class Logins(CausesCase):
    """The first frame of a client has to hold its user and its password."""

    async def test_too_long(self) -> None:
        """A user and a password that do not fit into it end a start with what to do; the longest that do fit log in."""
        user, least, most = "u" * 100, 2000, 5000
        broker = Broker("logins", users={"x": "y"})
        self.addCleanup(broker.close)
        host = f"127.0.0.1:{(await broker.listen('127.0.0.1', 0)).getHost().port}"
        consuming = self.connections(f"amqp://{host}/").consuming
        name = f"{consuming.connection_name} ({consuming.process})"
        while least < most - 1:
            middle = (least + most) // 2
            try:
                AmqpProtocol(Address("amqp", "h", 1, user, "p" * middle), 60, "PLAIN", name, Clock())
                least = middle
            except ConfigurationError:
                most = middle
        self.assertIn("refuses us", await self.refused(f"amqp://{user}:{'p' * least}@{host}/"))
        connections = self.connections(f"amqp://{user}:{'p' * most}@{host}/")
        for make in (lambda: connections.consuming, lambda: connections.publisher):
            error = self.assertRaises(ConfigurationError, make)
            self.assertIn("bytes too long for the first frame of AMQP", str(error))
            self.assertNotIn("ppp", str(error))

    async def test_not_offered(self) -> None:
        """A login that the broker does not offer ends a start, where RabbitMQ hangs up without a word."""
        broker = Broker("logins")
        self.addCleanup(broker.close)
        port = (await broker.listen("127.0.0.1", 0)).getHost().port
        line = await self.refused(f"amqp://127.0.0.1:{port}/", LOGIN_METHOD="EXTERNAL")
        self.assertRegex(line, r"takes (PLAIN, AMQPLAIN|AMQPLAIN, PLAIN) for a login, and not EXTERNAL: write one of")


class Tls(CausesCase):
    """Certificates, with a broker that asks for one of ours."""

    async def setUp(self) -> None:
        super().setUp()
        self.authority = trustme.CA()
        self.middle = self.authority.create_child_ca()
        self.broker = Broker("tls")
        self.addCleanup(self.broker.close)
        self.trusted = self.path("ca.pem", self.authority.cert_pem)

    async def serve(self, host: str = "localhost", asks: bool = False) -> str:
        issued = self.authority.issue_cert(host)
        own = ssl.PrivateCertificate.loadPEM(issued.private_key_and_cert_chain_pem.bytes())
        trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(self.authority.cert_pem.bytes())])
        options = ssl.CertificateOptions(
            privateKey=own.privateKey.original, certificate=own.original, trustRoot=trust if asks else None
        )
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
        return f"amqps://localhost:{await self.listen(endpoint, Sessions(self.broker))}/"

    async def works(self, uri: str, **options: str) -> None:
        consumer = self.connections(uri, AMQP_SSL={"ca_certs": self.trusted, **options})
        await consumer.consume(Queue("q"), Message.ack, 1).ready

    async def test_whole_chain(self) -> None:
        """Our certificate goes with the authorities between it and the one that the broker trusts."""
        issued = self.middle.issue_cert("client")
        chain = self.path("chain.pem", *issued.cert_chain_pems)
        key = self.path("key.pem", issued.private_key_pem)
        uri = await self.serve(asks=True)
        await self.works(uri, certfile=chain, keyfile=key)
        await self.works(uri, certfile=self.path("both.pem", issued.private_key_pem, *issued.cert_chain_pems))

    async def test_encrypted_key(self) -> None:
        """A key with a password works with it; without it, or with another, that is one line and no question."""
        issued = self.authority.issue_cert("client")
        plain = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        encrypted = plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"s3cret"),
        )
        files = {
            "certfile": self.path("cert.pem", *issued.cert_chain_pems),
            "keyfile": self.path("key.pem", encrypted),
        }
        await self.works(await self.serve(asks=True), **files, password="s3cret")
        self.mistake("the key in keyfile is encrypted: give its password", **files)
        self.mistake("the key in keyfile can't be read: its password is another", **files, password="wrong")

    def test_mistakes(self) -> None:
        """Each mistake in AMQP_SSL is told before anything connects."""
        one, two = self.authority.issue_cert("one"), self.authority.issue_cert("two")
        cert, key = self.path("one.pem", *one.cert_chain_pems), self.path("two.pem", two.private_key_pem)
        nothing = self.path("nothing.pem", b"nothing\n")
        broken = self.path("broken.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.mistake("the key in keyfile does not belong to the certificate in certfile", certfile=cert, keyfile=key)
        self.mistake(
            "the key in certfile can't be read: there is none, or it is no PEM: name its file as keyfile", certfile=cert
        )
        self.mistake("the key in keyfile can't be read: there is none", certfile=cert, keyfile=nothing)
        self.mistake("certfile has no certificate in it", certfile=nothing)
        self.mistake("a certificate in ca_certs can't be read as PEM", ca_certs=broken)
        self.mistake("ca_certs has no certificate in it", ca_certs=nothing)
        self.mistake("/no/such/file can't be read: No such file", ca_certs="/no/such/file")
        self.mistake("ca_certs: null is no path", ca_certs=None)
        self.mistake("AMQP_SSL: password is no text: write that of the key, in quotes", certfile=cert, password=5)

    def mistake(self, words: str, **options: Any) -> None:
        config = {"AMQP_URI": "amqps://localhost/", "AMQP_SSL": options}
        error = self.assertRaises(ConfigurationError, Connections.from_config, config)
        self.assertIn(words, str(error))
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertNotIn("s3cret", str(error))

    async def test_not_trusted(self) -> None:
        """An authority that is not known, a certificate for another host, one of ours that is missing or unknown."""
        other = self.path("other.pem", trustme.CA().cert_pem)
        uri = await self.serve()
        self.assertIn(
            "name the authority's file in AMQP_SSL: ca_certs", await self.refused(uri, AMQP_SSL={"ca_certs": other})
        )
        self.assertIn("AMQP_SSL: ca_certs", await self.refused(uri))
        elsewhere = await self.serve("elsewhere")
        line = await self.refused(elsewhere, AMQP_SSL={"ca_certs": self.trusted})
        self.assertIn("certificate is for another host", line)
        asks = await self.serve(asks=True)
        self.assertIn("certificate of ours", await self.refused(asks, AMQP_SSL={"ca_certs": self.trusted}))


class Hosts(SynchronousTestCase):
    """Names of hosts."""

    def test_hosts(self) -> None:
        """Every name that a resolver may know has an endpoint; one that can't be a name is a mistake."""
        for host in (
            "rabbit_mq",
            "my_stack_rabbit_1",
            "_rabbit",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "m%C3%BCller.de",
            "a.b.",
        ):
            endpoint_for(parse_address(f"amqp://{host}:5672/"), None, Clock())
        for host in ("a" * 64 + ".%C3%BC", "%C3%BC..de"):
            self.assertRaises(ConfigurationError, endpoint_for, parse_address(f"amqp://{host}/"), None, Clock())

    def test_tls_to_a_host_with_an_underscore(self) -> None:
        """No certificate can be checked for such a host: that is told, with what to do."""
        address = parse_address("amqps://rabbit_mq/")
        error = self.assertRaises(ConfigurationError, endpoint_for, address, None, Clock())
        self.assertIn("'rabbit_mq'", str(error))


@implementer(IHostnameResolver)
class Resolver:
    """Knows every host, as this machine."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *_: Any) -> Any:
        self.asked.append(hostName)
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()


class Underscores(CausesCase):
    """A host that IDNA does not know."""

    async def test_connects(self) -> None:
        """The machine's resolver is asked, and the connection comes about."""
        broker = Broker("plain")
        self.addCleanup(broker.close)
        port = (await broker.listen("127.0.0.1", 0)).getHost().port
        resolver = Resolver()
        self.addCleanup(reactor.installNameResolver, reactor.installNameResolver(resolver))
        consumer = self.connections(f"amqp://my_stack_rabbit_1:{port}/").consume(Queue("q"), Message.ack, 1)
        await consumer.ready
        self.assertEqual(resolver.asked, ["my_stack_rabbit_1"])


class OnRabbitMQ(CausesCase):
    """RabbitMQ's own answers."""

    skip = rabbitmq.skip
    timeout = 120

    async def test_ports(self) -> None:
        """Its port for TLS without TLS, its port without TLS with it, and its port for TLS without a certificate."""
        node = managed.node()
        self.assertIn("speaks TLS there: write amqps://", await self.refused(f"amqp://localhost:{node.ssl_port}/"))
        self.assertIn("speaks no TLS there: write amqp://", await self.refused(f"amqps://localhost:{node.port}/"))
        authority = {"ca_certs": node.path("ca.pem")}
        uri = f"amqps://localhost:{node.ssl_port}/"
        self.assertIn("certificate of ours", await self.refused(uri, AMQP_SSL=authority))
        ours = {**authority, "certfile": node.path("client.pem")}
        await self.connections(uri, AMQP_SSL=ours).consume(Queue("q"), Message.ack, 1).ready
