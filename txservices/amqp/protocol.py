"""One connection to a broker: bytes to its channels, the handshake, heartbeats, the close.

``Protocol`` is a subclass of txamqp's ``AMQClient``. It keeps txamqp's channels, its ``Delegate`` (for methods that the
broker sends without being asked), its events and ``close``. It replaces these parts of txamqp 0.8.2 (of 2018):

- framing: txamqp joins and cuts its buffer for each frame, which takes quadratic time; ``frames.FrameReader`` does not;
- the codec: txamqp has no arrays, signed numbers or nested tables, counts strings before they are encoded, and guesses
  that bodies are text; ``codec`` reads and writes every type, from one table;
- ``start``: txamqp's makes a call that Twisted deprecates, which is an error where warnings are errors;
- the queues ``outgoing`` and ``work``: here a frame out is a write, and a frame in is a call;
- the first bytes: txamqp sends ``AMQP 1 1 0 9``, the standard says ``AMQP 0 0 9 1``;
- client properties: txamqp sends none, and a broker tells a client that has not announced the capability neither of a
  cancelled consumer nor of a blocked connection;
- heartbeats and limits: txamqp repeats the broker's; here they are negotiated, and a connection to a broker that is
  silent for two intervals is aborted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from txamqp.client import TwistedDelegate
from txamqp.message import Message as TxMessage
from txamqp.protocol import AMQClient

from txservices.amqp.causes import no_start, no_word, wrong_method
from txservices.amqp.channel import Channel, closed_error, closed_here
from txservices.amqp.outbox import Flow, Outbox, send
from txservices.amqp.spec import shared_spec
from txservices.amqp.startok import start_ok
from txservices.exceptions import AmqpError, ConnectionLost, FrameError, HandshakeFailed
from txservices.utils.address import Address
from txservices.utils.forks import leave, owners
from txservices.wire.codec import encode_method
from txservices.wire.frames import FRAME_MAX, HEARTBEAT_FRAME, FrameReader, frame
from txservices.wire.heartbeat import SILENT_INTERVALS, Heartbeat
from txservices.wire.reading import Reading
from txservices.wire.spec import (
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_MIN_SIZE,
    PROTOCOL_HEADER,
    ReplyCode,
)

log = Logger()

CHANNEL_MAX = 2047  # channels; RabbitMQ's own default
CLOSE_TIMEOUT = 2.0  # seconds to wait for the broker's close-ok before the socket is closed anyway


class Delegate(TwistedDelegate):
    """Receives the methods that a broker sends without being asked."""

    client: Protocol

    def connection_start(self, channel: Channel, start: TxMessage) -> None:
        client = self.client
        client.greeted = True
        offered = start.mechanisms.decode(errors="replace").split()
        if offered and client.mechanism not in offered:  # RabbitMQ would hang up without a word
            client.set_error(HandshakeFailed(0, wrong_method(client.mechanism, offered)))
            client.abort()
            return
        channel.reactions["connection.tune"] = channel.reactions.pop("connection.start")  # each of them comes once
        channel.connection_start_ok(**client.start_ok)

    def connection_tune(self, channel: Channel, tune: TxMessage) -> None:
        """Take the smaller of both sides' wishes; zero means "no wish" for limits, and "no heartbeats" for those."""
        client = self.client
        del channel.reactions["connection.tune"]
        client.channel_max = min(tune.channel_max or CHANNEL_MAX, CHANNEL_MAX)
        client.frame_max = max(min(tune.frame_max or FRAME_MAX, FRAME_MAX), FRAME_MIN_SIZE)
        client.reader.frame_max = client.frame_max
        wish = client.heartbeat_wish
        heartbeat = min(tune.heartbeat, wish) if tune.heartbeat and wish else 0
        channel.connection_tune_ok(channel_max=client.channel_max, frame_max=client.frame_max, heartbeat=heartbeat)
        client.tuned = True
        client.heartbeat.start(heartbeat)
        client.started.fire()

    def connection_blocked(self, channel: Channel, blocked: TxMessage) -> None:
        self.client.blocked = blocked.reason
        self.client.flow.block(True)
        log.warn(
            "the broker at {address} takes no messages ({reason}): publishes wait, up to their deadlines",
            address=self.client.address,
            reason=blocked.reason,
        )
        if self.client.on_blocked is not None:
            self.client.on_blocked(blocked.reason)

    def connection_unblocked(self, channel: Channel, unblocked: TxMessage) -> None:
        self.client.blocked = None
        log.info("the broker at {address} takes messages again", address=self.client.address)
        if self.client.on_blocked is not None:
            self.client.on_blocked(None)
        self.client.flow.block(False)

    def basic_cancel(self, channel: Channel, cancel: TxMessage) -> None:
        channel.consumers.pop(cancel.consumer_tag, None)
        if channel.on_cancelled is not None:
            channel.on_cancelled(cancel.consumer_tag)

    def channel_close(self, channel: Channel, close: TxMessage) -> None:
        # Both sides may close at once: then the answer to our close still comes, and the number is not free until then.
        ours = [each for each in channel.replies if each[0] == ("channel.close-ok",)]
        for each in ours:
            channel.replies.remove(each)
        super().channel_close(channel, close)
        channel.replies.extend(ours)
        if not ours:
            self.client.channels.pop(channel.id, None)

    def close(self, reason: Any) -> None:
        self.client.set_error(closed_error(reason))
        self.client.flush()
        super().close(reason)


class Protocol(AMQClient):
    """A connection, from its first byte to its last.

    Args:
        address: the broker's, with the virtual host and the credentials.
        heartbeat: the wanted interval in seconds; the smaller of both sides' wishes is taken. 0 for no heartbeats.
        mechanism: PLAIN, AMQPLAIN or EXTERNAL.
        name: what the broker's management shows for this connection.
        outbox: shared with the other connections of the process, so that their frames are sent together.

    Attributes:
        opened: fires with the protocol when channels can be opened; fails with why that never was.
        error: why the connection has ended; None until then.
        blocked: the broker's reason while it takes no messages, else None.
        on_blocked: called with that reason when the broker takes no messages, and with None when it does again.
        flow: whether messages may be published now.
    """

    channelClass = Channel
    transport: Any
    reading: Reading
    address: Address
    closed: bool

    def __init__(
        self,
        address: Address,
        heartbeat: int,
        mechanism: str,
        name: str,
        clock: IReactorTime,
        outbox: Outbox | None = None,
    ) -> None:
        # No heartbeat of txamqp's: it reschedules two timers for each frame.
        super().__init__(Delegate(), address.vhost, shared_spec(), heartbeat=0, clock=clock)
        self.address = address
        self.heartbeat_wish = heartbeat
        self.heartbeat = Heartbeat(clock, self.heartbeat_due, self.silence_found)
        self.mechanism = mechanism
        self.start_ok = start_ok(address, mechanism, name)
        self.channel_max = CHANNEL_MAX
        self.frame_max = FRAME_MAX
        self.blocked: str | None = None
        self.on_blocked: Callable[[str | None], None] | None = None
        self.flow = Flow()
        self.reader = FrameReader(self.frame_received, oversized=self.frame_oversized, message=self.message_received)
        self.opened: Deferred[Protocol] = Deferred(lambda _: self.abort())
        self.error: AmqpError | None = None
        self.greeted = self.tuned = False
        self.outbox = outbox or Outbox(clock)
        self.frames: list[bytes] = []  # they are sent with the next flush
        self.acking: list[Channel] = []  # channels with acks to send then
        self.flushing = False  # whether the outbox will call flush()

    # Bytes

    def connectionMade(self) -> None:
        owners.add(self)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        if hasattr(self.transport, "setTcpKeepAlive"):
            self.transport.setTcpKeepAlive(True)
        self.reading = Reading(self.transport)
        self.transport.registerProducer(self.flow, True)
        self.channels[0] = self.channelFactory(0, self.outgoing, self)
        self.transport.write(PROTOCOL_HEADER)
        # with the interval wished for, so that a peer which takes the connection and says nothing is found out
        self.heartbeat.start(self.heartbeat_wish)
        opening: Deferred[Any] = self.started.wait()
        opening.addCallback(lambda _: self.channels[0].connection_open(self.vhost))
        opening.addCallbacks(lambda _: self.opening_done(), self.opening_failed)
        opening.addErrback(lambda failure: log.failure("while opening a connection", failure))

    def opening_done(self) -> None:
        if not self.opened.called:
            self.opened.callback(self)

    def opening_failed(self, failure: Any) -> None:
        if not self.opened.called:
            self.opened.errback(self.error or closed_error(failure))

    def dataReceived(self, data: bytes) -> None:
        began = self.heartbeat.read_at = self.clock.seconds()
        if self.closed:
            return
        try:
            self.outbox.receive(self.reader.feed, data)
            self.reading.adapt(len(data), self.clock.seconds() - began)
        except FrameError as error:
            if self.greeted:
                self.close_for(error)
            else:
                self.set_error(no_start(data, error))
                self.abort()

    def pause(self) -> None:
        """Read nothing until ``resume``. TCP has the broker wait; heartbeats and acks still go out."""
        self.heartbeat.reading = False
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.heartbeat.reading = True
        self.heartbeat.read_at = self.clock.seconds()
        self.transport.resumeProducing()

    def frame_received(self, kind: int, number: int, payload: bytes) -> None:
        """Pass one frame to its channel."""
        channel = self.channels.get(number)
        if kind == FRAME_HEARTBEAT:
            return  # dataReceived has noted that bytes have come
        if channel is None:
            if self.closed:  # by a frame that came in the same chunk
                return
            raise FrameError(ReplyCode.CHANNEL_ERROR, f"a frame for channel {number}, which is not open")
        channel.assembler.frame(kind, payload)

    def message_received(self, number: int, method: bytes, header: bytes, body: bytes) -> None:
        """Pass the three frames of a message to their channel."""
        channel = self.channels.get(number)
        if channel is None:
            self.frame_received(FRAME_METHOD, number, method)
        else:
            channel.assembler.message(method, header, body)

    def frame_oversized(self, kind: int, number: int, beginning: bytes, error: FrameError) -> None:
        """Have the message skipped whose header is over ``frame_max``."""
        # RabbitMQ sends such headers: those of a dead letter have grown by x-death since they were published.
        channel = self.channels.get(number)
        if kind != FRAME_HEADER or channel is None:
            raise error
        channel.assembler.large_header(beginning, error)

    def write(self, data: bytes) -> None:
        """Send frames soon, together with others: see ``outbox``."""
        self.frames.append(data)
        if not self.flushing:
            self.flushing = True
            self.outbox.add(self.flush)

    def flush_soon(self, channel: Channel) -> None:
        """Send the acks of a channel along with the next frames."""
        self.acking.append(channel)
        if not self.flushing:
            self.flushing = True
            self.outbox.add(self.flush)

    def flush(self) -> None:
        """Send all frames that wait."""
        self.flushing = True  # flush_acks() writes, and that goes along
        for channel in self.acking:
            channel.flush_acks()
        self.acking.clear()
        self.flushing = False
        if self.frames:
            frames, self.frames = self.frames, []
            self.heartbeat.wrote = True
            send(self.transport, b"".join(frames))

    def close_for(self, error: FrameError) -> None:
        """Close because the broker has broken the protocol. Whatever waits on this connection fails with the error."""
        log.error("closing the connection to {address}: {error}", address=self.address, error=error)
        text = str(error)[:200]
        close = encode_method("connection.close", reply_code=int(error.code), reply_text=text)
        self.write(frame(FRAME_METHOD, 0, close))
        self.do_close(error)

    # Channels

    def open_channel(self, patience: float | None = None) -> Deferred[Channel]:
        """Fires with a new open channel; fails as ``Channel.invoke`` does.

        ``patience`` is how many seconds longer than the opening took each later answer may take; None for no limit.
        """
        if self.closed:  # nothing would ever answer here
            return fail(self.error or ConnectionLost("the connection to the broker is closed"))
        number = next((n for n in range(1, self.channel_max + 1) if n not in self.channels), None)
        if number is None:
            text = (
                f"all {self.channel_max} channels of a connection are in use, and each queue that is consumed takes"
                " one: raise the broker's channel_max, or run some of the services in another process"
            )
            return fail(AmqpError(ReplyCode.RESOURCE_ERROR, text, "channel.open"))
        channel: Channel = self.channelFactory(number, self.outgoing, self)
        self.channels[number] = channel
        asked = self.clock.seconds()

        def opened(_: Any) -> Channel:
            if patience is not None:  # no queue is asked for this one answer: its time is the link's and the broker's
                channel.patience = patience + self.clock.seconds() - asked
            return channel

        opening: Deferred[Any] = channel.channel_open()
        return opening.addCallback(opened)

    def close_channel(self, channel: Channel) -> Deferred[None]:
        """Close a channel: its unsettled deliveries go back to their queues. Fires when the broker agrees."""
        if channel.closing:
            return succeed(None)
        channel.flush_acks()
        channel.consumers.clear()
        closing: Deferred[Any] = channel.channel_close(reply_code=ReplyCode.REPLY_SUCCESS, reply_text="done")
        channel.closing = True

        def closed(_: Any) -> None:
            self.channels.pop(channel.id, None)
            channel.close(closed_here())

        return closing.addBoth(closed)

    def do_close(self, reason: Any) -> None:
        if not self.closed:
            self.transport.unregisterProducer()  # else it would wait for more before it closes
        self.closed = True  # first: whoever is told of a closed channel may ask for another at once
        self.set_error(closed_error(reason))
        channels = self.channels
        self.channels: dict[int, Channel] = {}  # another dict: whoever is told of a closed channel may remove others
        for channel in channels.values():
            channel.close(reason)
        super().do_close(reason)

    # The end

    def abort(self) -> None:
        """End the connection at once, without a word to the broker."""
        if self.transport is not None:
            self.transport.abortConnection()

    def disown(self) -> None:
        """Called in a forked child: the connection is its parent's."""
        self.transport = leave(self.transport)

    def set_error(self, error: AmqpError) -> None:
        """Remember why this connection ends: the first reason is the true one."""
        if self.error is None:
            self.error = error

    def connectionLost(self, reason: Any) -> None:
        self.heartbeat.stop()
        if not self.greeted:
            self.set_error(no_word(reason.value))
        super().connectionLost(reason)
        if not self.opened.called:
            self.opened.errback(self.error or closed_error(reason))

    # Heartbeats

    def heartbeat_due(self) -> None:
        if self.tuned:
            self.transport.write(HEARTBEAT_FRAME)

    def silence_found(self) -> None:
        log.error(
            "the broker at {address} was silent for {intervals} heartbeat intervals: connection dropped",
            address=self.address,
            intervals=SILENT_INTERVALS,
        )
        self.abort()
