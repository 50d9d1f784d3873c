"""Client and server joined inside the process, still by bytes: the transport of ``memory://NAME``.

    client.transport.write -> Pipe -> (next turn of the reactor) -> Session.dataReceived, and back the same way

Everything that one side writes in a turn arrives as one piece. A side that is paused gets nothing, and once
``BUFFER_MAX`` bytes wait for it, the writer's producer is paused, as with TCP.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txservices.broker.server import Broker
from txservices.broker.session import Session

log = Logger()

BUFFER_MAX = 16_384  # bytes that may wait before the producer is paused: of short messages, 10 ms of workers

brokers: dict[str, Broker] = {}


def broker_named(name: str) -> Broker:
    """The broker of ``memory://NAME``, made when it is first asked for."""
    broker = brokers.get(name)
    if broker is None:
        broker = brokers[name] = Broker(name)
    return broker


def endpoint(name: str) -> Endpoint:
    """The endpoint of ``memory://NAME``. The broker of that name is made with the first connection."""
    return Endpoint(name)


@implementer(IAddress)
class MemoryAddress:
    """The address of both sides of a connection in memory."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"memory://{self.name}"


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects to a broker in this process."""

    def __init__(self, name: str) -> None:
        self.name = name

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol, connected."""
        return execute(self.connect_now, protocolFactory)

    def connect_now(self, factory: IProtocolFactory) -> IProtocol:
        broker = broker_named(self.name)
        address = MemoryAddress(self.name)
        client = factory.buildProtocol(address)
        if client is None:
            raise ConnectionRefusedError()
        join(client, Session(broker, trusted=True), broker.clock, address)
        return client


def join(client: Any, server: Any, clock: Any, address: Any = None) -> tuple[Pipe, Pipe]:
    """Connect two protocols to each other, and return the transport of each."""
    ours = Pipe(client, clock, address)
    theirs = Pipe(server, clock, address)
    ours.peer, theirs.peer = theirs, ours
    server.makeConnection(theirs)
    client.makeConnection(ours)
    return ours, theirs


@implementer(ITransport, IConsumer, IPushProducer)
class Pipe:
    """The transport of one side. Its bytes wait here until the next turn of the reactor."""

    peer: Pipe

    def __init__(self, protocol: Any, clock: Any, address: Any = None) -> None:
        self.protocol = protocol
        self.clock = clock
        self.address = address
        self.connected = True
        self.disconnecting = False
        self.aborted = False
        self.chunks: list[bytes] = []
        self.waiting = 0  # bytes in chunks
        self.reading = True
        self.scheduled = False
        self.producer: Any = None
        self.producer_paused = False

    def write(self, data: bytes) -> None:
        if not self.connected or self.disconnecting:
            return
        self.chunks.append(data)
        self.waiting += len(data)
        if not self.scheduled:
            self.schedule()
        if self.waiting > BUFFER_MAX and self.producer is not None and not self.producer_paused:
            self.producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def schedule(self) -> None:
        self.scheduled = True
        self.clock.callLater(0, self.flush)

    def flush(self) -> None:
        """Hand the bytes to the other side, if it is reading, then end the connection if this side closed it."""
        self.scheduled = False
        if not self.connected or self.aborted or not self.peer.reading:
            return
        chunks, self.chunks = self.chunks, []
        self.waiting = 0
        if chunks:
            self.peer.receive(b"".join(chunks))
        if self.producer_paused and self.connected:
            self.producer_paused = False
            self.producer.resumeProducing()
        if self.disconnecting and not self.chunks and self.connected:
            self.disconnect(ConnectionDone(), ConnectionDone())

    def receive(self, data: bytes) -> None:
        """Hand bytes to this side's protocol. An error in it ends the connection, as the reactor would end TCP's."""
        try:
            self.protocol.dataReceived(data)
        except Exception:
            log.failure("an error in {protocol} ends its connection", protocol=self.protocol)
            self.abortConnection()

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Memory has no use for that, but a site asks for it for a WebSocket."""

    def loseConnection(self) -> None:
        """End the connection once the other side has received everything."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            if not self.scheduled:
                self.schedule()

    def abortConnection(self) -> None:
        """End the connection now. Bytes that were not received yet are lost."""
        if self.connected and not self.aborted:
            self.aborted = self.disconnecting = True
            self.reading = False
            self.chunks = []
            self.clock.callLater(0, self.disconnect, ConnectionAborted(), ConnectionLost())

    def disconnect(self, ours: Exception, theirs: Exception) -> None:
        if self.connected:
            self.connected = self.peer.connected = False
            self.peer.protocol.connectionLost(Failure(theirs))
            self.protocol.connectionLost(Failure(ours))

    def getPeer(self) -> Any:
        return self.address

    def getHost(self) -> Any:
        return self.address

    # What this side's producer is told, and tells

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.producer_paused = False

    # What this side says of its own reading

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = not self.aborted
        if not self.peer.scheduled:
            self.peer.schedule()

    def stopProducing(self) -> None:
        self.loseConnection()
