"""One client's connection: bytes to its channels, heartbeats, back-pressure, the close.

    dataReceived(bytes) -> FrameReader -> channel 0: Handshake, then connection.close here
                                          channel n: Channel, a method for each of AMQP's

An ``AmqpError`` raised on the way closes the channel, or the connection if it is one of AMQP's ``HARD_ERRORS``. A
client can do no more harm than that.

If a client does not read, deliveries to it stop while its transport is paused. Once ``BACKLOG_MAX`` bytes of answers
wait for it, nothing more is read from it either, and its heartbeats are missed if it stays so. While the broker is
short of memory, any answer that waits is too much, and nothing is read from a client that publishes.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txservices.broker.channel import Channel, close_arguments
from txservices.broker.deliveries import requeue
from txservices.broker.handshake import CHANNEL_MAX, LOGIN_FRAME_MAX, SHOWN_MAX, Handshake, Host
from txservices.broker.held import CHANNEL_COST
from txservices.broker.vhost import VirtualHost
from txservices.broker.watermark import Watermark
from txservices.exceptions import AmqpError, FrameError
from txservices.utils.forks import leave, owners
from txservices.utils.waiting import Waiters
from txservices.wire.codec import encode_method
from txservices.wire.frames import FRAME_MAX, HEARTBEAT_FRAME, Assembler, Content, FrameReader, frame
from txservices.wire.heartbeat import SILENT_INTERVALS, Heartbeat
from txservices.wire.reading import Reading
from txservices.wire.spec import FRAME_HEARTBEAT, FRAME_METHOD, HARD_ERRORS, ReplyCode

log = Logger()

LOGIN_TIMEOUT = 10.0  # seconds from the first byte to connection.open; RabbitMQ's own default
CLOSE_TIMEOUT = 2.0  # seconds to wait for a close-ok before the socket is closed anyway
BACKLOG_MAX = 1_048_576  # bytes that wait for a client which doesn't read, before nothing is read from it either


class Server(Host, Protocol):
    """What a session asks of the broker that it is a connection to."""

    clock: Any
    watermark: Watermark

    def add(self, session: Session) -> None: ...

    def remove(self, session: Session) -> None: ...


@implementer(IPushProducer)
class Session(protocol.Protocol):
    """A connection, from its first byte to its last.

    Args:
        broker: the broker that it is a connection to.
        trusted: the client is inside this process: any user and any virtual host are taken.
    """

    transport: Any  # no single interface has all that TCP and memory share
    reading: Reading

    def __init__(self, broker: Server, trusted: bool = False) -> None:
        self.broker = broker
        self.user = self.name = ""
        self.vhost: VirtualHost
        self.channels: dict[int, Channel] = {}
        self.channel_max = CHANNEL_MAX
        self.frame_max = FRAME_MAX
        self.capabilities: dict[str, Any] = {}
        self.handshake: Handshake | None = Handshake(self, broker, trusted)  # until the client is in
        self.reader = FrameReader(self.frame_received, LOGIN_FRAME_MAX)
        self.assembler = Assembler(self.method_received)
        self.closing = False  # a connection.close was sent: only its answer counts
        self.discarding = False  # not even the answer can be read any more
        self.lingers = False  # the client has closed the connection, and may still have much to send
        self.lost: Waiters[None] = Waiters()
        self.timeout: IDelayedCall | None = None  # of the login, later of the close
        self.heartbeat = Heartbeat(broker.clock, self.heartbeat_due, self.silence_found)
        self.paused = False
        self.backlog = 0
        self.unread = 0  # bytes that the watermark counts, the backlog and the write before it
        self.blocked = False  # it has published while the broker was short of memory
        self.stalled = False  # for either reason nothing is read, and no frame is taken
        self.untaken: deque[tuple[int, int, bytes]] = deque()  # frames that had come before it was stalled
        self.heartbeat_interval = 0
        self.unconfirmed: list[Channel] = []  # channels with something to confirm

    # Bytes

    def connectionMade(self) -> None:
        owners.add(self)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.broker.add(self)
        self.reading = Reading(self.transport)
        self.transport.registerProducer(self, True)
        self.timeout = self.broker.clock.callLater(LOGIN_TIMEOUT, self.login_overdue)

    def dataReceived(self, data: bytes) -> None:
        began = self.heartbeat.read_at = self.broker.clock.seconds()
        if self.discarding:
            if self.lingers:
                self.abort_within(CLOSE_TIMEOUT)
            return
        if self.handshake is not None:
            data = self.handshake.read_opening(data)
        try:
            self.reader.feed(data)
        except FrameError as error:  # nobody knows where the next frame would begin
            self.discarding = True
            self.close(error)
        self.flush_confirms()
        self.reading.adapt(len(data), self.broker.clock.seconds() - began)

    def frame_received(self, kind: int, number: int, payload: bytes) -> None:
        """Hand one frame to its channel. Whatever goes wrong with it is the business of this client alone."""
        if self.stalled:
            self.untaken.append((kind, number, payload))
            return
        if kind == FRAME_HEARTBEAT or self.discarding:
            return  # a heartbeat says only that bytes came
        channel = None
        try:
            if number == 0:
                self.assembler.frame(kind, payload)
            elif not self.closing:
                channel = self.channels.get(number) or self.new_channel(number)
                channel.assembler.frame(kind, payload)
        except AmqpError as error:
            if channel is None or error.code in HARD_ERRORS:
                self.close(error)
            else:
                self.flush_confirms()
                channel.close(error)
        except Exception:
            log.failure("a bug of the embedded broker: please report it")
            self.close(AmqpError(ReplyCode.INTERNAL_ERROR, "a bug of the broker: its log says which"))

    def flush_confirms(self) -> None:
        """Confirm everything that came in one chunk, with one method for each channel."""
        if self.unconfirmed:
            channels, self.unconfirmed = self.unconfirmed, []
            for channel in channels:
                channel.flush_confirms()

    def send(self, channel: int, method: str, **arguments: Any) -> None:
        self.write(frame(FRAME_METHOD, channel, encode_method(method, **arguments)))

    def write(self, data: bytes) -> None:
        """Send frames. The transport joins what one turn of the reactor writes into one send."""
        self.heartbeat.wrote = True
        waits = self.paused  # the write that fills the transport does not count: it may be one long delivery
        self.transport.write(data)
        if self.paused:
            self.unread += len(data)
            self.broker.watermark.take(len(data))
        if waits:
            self.backlog += len(data)
            if self.backlog > BACKLOG_MAX or self.broker.watermark.alarmed:
                self.stall()

    # Back-pressure

    def stall(self) -> None:
        """Read nothing more. Of what has been read already, the rest of the frames wait, too."""
        if not self.stalled and not self.closing:
            self.stalled = True
            self.transport.pauseProducing()

    def disown(self) -> None:
        """Called in a forked child: the connection is its parent's."""
        self.transport = leave(self.transport)

    def go_on(self) -> None:
        """Take the frames that wait, and read again, unless that is too early."""
        if not self.stalled or self.blocked or self.backlog > BACKLOG_MAX:
            return
        self.stalled = False
        while self.untaken and not self.stalled:
            self.frame_received(*self.untaken.popleft())
        self.flush_confirms()
        if not self.stalled:
            self.transport.resumeProducing()

    def block(self) -> None:
        """The client has published while the broker is short of memory: read nothing more of it until that is over.

        As with RabbitMQ, a client that only consumes is not stopped.
        """
        if not self.blocked and not self.closing:
            self.blocked = True
            self.stall()
            if self.capabilities.get("connection.blocked"):
                self.send(0, "connection.blocked", reason="low on memory")

    def unblock(self) -> None:
        if self.blocked:
            self.blocked = False
            if self.capabilities.get("connection.blocked") and not self.closing:
                self.send(0, "connection.unblocked")
            self.go_on()

    def pauseProducing(self) -> None:
        """The client reads too slowly: no deliveries for now."""
        if self.paused:  # Twisted's transport calls this at each write while its buffer is full
            return
        self.paused = True
        self.backlog = 0
        for channel in self.channels.values():
            channel.update_flow()

    def resumeProducing(self) -> None:
        self.paused = False
        self.backlog = 0
        self.forget_unread()
        for channel in list(self.channels.values()):
            channel.update_flow()
        self.go_on()

    def forget_unread(self) -> None:
        self.broker.watermark.held -= self.unread
        self.unread = 0

    def stopProducing(self) -> None:
        self.paused = True

    # Channel 0

    def method_received(self, content: Content) -> None:
        name = content.method.name
        if name in CLOSES:
            CLOSES[name](self, content.args)
        elif self.closing:
            return
        elif self.handshake is not None:
            self.handshake.method_received(content)
        else:
            code = ReplyCode.NOT_IMPLEMENTED if name == "connection.update-secret" else ReplyCode.COMMAND_INVALID
            raise AmqpError(code, f"{name} where a channel was due", name)

    @property
    def client(self) -> str:
        """Who the client says that it is, for a line of the log."""
        user = f"user {self.user[:SHOWN_MAX]!r}"
        return f"{user}, {self.name!r}" if self.name else user

    def enter(self, vhost: VirtualHost) -> None:
        """The client is in: the handshake is through."""
        self.vhost = vhost
        self.handshake = None
        self.cancel_timeout()
        self.send(0, "connection.open-ok")

    # Channels

    def new_channel(self, number: int) -> Channel:
        """Make a channel, which waits for its ``channel.open``."""
        if self.handshake is not None:
            due = self.handshake.expects
            raise AmqpError(ReplyCode.COMMAND_INVALID, f"a frame on channel {number} where {due} was due")
        if len(self.channels) >= self.channel_max:  # the number itself may be higher
            raise AmqpError(
                ReplyCode.NOT_ALLOWED,
                f"number of channels opened ({len(self.channels)}) has reached the negotiated channel_max"
                f" ({self.channel_max})",
            )
        self.vhost.held.take(f"open channel {number}", CHANNEL_COST, ReplyCode.RESOURCE_ERROR)
        channel = self.channels[number] = Channel(number, self)
        return channel

    def forget(self, channel: Channel) -> None:
        if self.channels.pop(channel.number, None) is not None:
            self.vhost.held.give(CHANNEL_COST)

    # The end

    def close(self, error: AmqpError) -> None:
        """Close the connection and say why. It is lost with the client's answer, or ``CLOSE_TIMEOUT`` later."""
        if self.closing:
            return
        self.closing = True
        log.debug("closing a connection of {client}: {error!r}", client=self.client, error=str(error))
        self.flush_confirms()
        self.close_channels()
        self.send(0, "connection.close", **close_arguments(error))
        self.abort_within(CLOSE_TIMEOUT)
        self.blocked = False  # its answer has to be read
        self.backlog = 0
        self.go_on()

    def client_closes(self, args: dict[str, Any]) -> None:
        self.flush_confirms()
        self.close_channels()
        self.send(0, "connection.close-ok")
        if not hasattr(self.transport, "loseWriteConnection"):
            self.close_transport()
            return
        # A socket that is closed with bytes unread is reset, and a client that is still publishing never sees the
        # answer: its bytes are read and dropped until it closes the connection itself.
        self.closing = self.discarding = self.lingers = True
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()
        self.abort_within(CLOSE_TIMEOUT)

    def close_ok(self, args: dict[str, Any]) -> None:
        if not self.closing:
            raise AmqpError(ReplyCode.COMMAND_INVALID, "connection.close-ok, and nothing was closed")
        self.close_transport()

    def close_transport(self) -> None:
        """Close the connection once everything is sent, and read nothing more."""
        self.closing = self.discarding = True
        self.transport.unregisterProducer()  # over TLS, loseConnection waits for it
        self.transport.loseConnection()
        self.abort_within(CLOSE_TIMEOUT)  # a client may not read what is still to be sent

    def abort_within(self, seconds: float) -> None:
        self.cancel_timeout()
        self.timeout = self.broker.clock.callLater(seconds, self.transport.abortConnection)

    def broker_closes(self) -> Deferred[None]:
        """Close the connection, as the broker does. The Deferred fires with None when the connection is lost."""
        lost = self.lost.wait()
        self.lingers = False
        if self.handshake is not None:
            self.transport.abortConnection()
        else:
            self.close(AmqpError(ReplyCode.CONNECTION_FORCED, "the broker is stopping"))
        return lost

    def close_channels(self) -> None:
        """Requeue every unsettled delivery, and delete the exclusive queues."""
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            channel.deliveries.flowing = False  # so that no message goes to a consumer of this session
        # at once, to keep the order, and before the next single active consumer has its turn
        requeue([entry for channel in channels.values() for entry in channel.deliveries.settle(0, multiple=True)])
        for channel in channels.values():
            channel.cancel()
        if self.handshake is None:
            self.vhost.held.give(CHANNEL_COST * len(channels))
            self.vhost.forget_owner(self)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self.closing = self.discarding = True
        self.cancel_timeout()
        self.heartbeat.stop()
        self.close_channels()
        self.forget_unread()
        self.broker.remove(self)
        self.lost.fire(None)

    # Time

    def login_overdue(self) -> None:
        log.info("a connection that did not log in within {seconds} s is dropped", seconds=LOGIN_TIMEOUT)
        self.transport.abortConnection()

    def cancel_timeout(self) -> None:
        if self.timeout is not None and self.timeout.active():
            self.timeout.cancel()
        self.timeout = None

    def heartbeat_due(self) -> None:
        self.transport.write(HEARTBEAT_FRAME)

    def silence_found(self) -> None:
        if self.blocked:  # nothing is read from it, so nothing can be heard
            self.heartbeat.start(self.heartbeat_interval)
            return
        log.info(
            "a connection of {client} was silent for {intervals} heartbeat intervals: dropped",
            client=self.client,
            intervals=SILENT_INTERVALS,
        )
        self.transport.abortConnection()


CLOSES = {"connection.close": Session.client_closes, "connection.close-ok": Session.close_ok}
