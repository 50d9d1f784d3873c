"""A port may have nobody on it, a broker, or something that speaks another language."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.trial.unittest import TestCase

from tests.rabbitmq import free_port
from txservices.command import probe
from txservices.wire.frames import frame


class Says(Protocol):
    """A server that answers the first bytes with `words`, and hangs up if it has none."""

    words = b""

    def dataReceived(self, data: bytes) -> None:
        if self.words:
            self.transport.write(self.words)
        else:
            self.transport.loseConnection()


class Probe(TestCase):
    """The question, put to real sockets."""

    def listen(self, words: bytes) -> int:
        factory = ServerFactory()
        factory.noisy = False
        factory.protocol = type("Words", (Says,), {"words": words})
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def test_nobody(self) -> None:
        """A port that nothing listens on."""
        answer = await probe.ask("127.0.0.1", free_port(), reactor)
        self.assertIs(answer, probe.Answer.NOBODY)

    async def test_broker(self) -> None:
        """A method frame, or the opening of another AMQP version, is a broker's answer."""
        for words in (frame(1, 0, b"\x00\x0a\x00\x0a"), b"AMQP\x00\x01\x00\x00"):
            answer = await probe.ask("127.0.0.1", self.listen(words), reactor)
            self.assertIs(answer, probe.Answer.BROKER, words)

    async def test_something_else(self) -> None:
        """A web server answers otherwise, and others hang up."""
        for words in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
            answer = await probe.ask("127.0.0.1", self.listen(words), reactor)
            self.assertIs(answer, probe.Answer.OTHER, words)
