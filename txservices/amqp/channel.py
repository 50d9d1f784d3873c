"""A channel: methods out and their answers, deliveries and their acks, publishes and their confirms.

``Channel`` is a subclass of txamqp's ``AMQChannel``. txamqp carries each delivery through three queues and five locks;
here a whole method goes straight to whoever asked for it. txamqp's generated methods
(``channel.queue_declare(queue=…)``) all end in ``invoke``. A channel knows nothing of an earlier connection:
``publisher`` and ``subscription`` have what outlives one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from txamqp.message import Message as TxMessage
from txamqp.protocol import AMQChannel

from txservices.amqp.entities import NOTHING, Message
from txservices.amqp.prefetched import Prefetched
from txservices.amqp.publishing import Publishing, may_be_return_of
from txservices.exceptions import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    FrameError,
    NotAnswered,
    PublishNacked,
    UndeliverableMessage,
)
from txservices.observers import observers
from txservices.wire.codec import encode_ack, encode_method
from txservices.wire.frames import Assembler, Content, content_frames, frame
from txservices.wire.spec import FRAME_METHOD, FRAME_OVERHEAD, METHODS, METHODS_BY_ID, ReplyCode
from txservices.wire.tables import octets

log = Logger()

# Methods that a broker may send without being asked, on channel 0 and on the others. For ``connection.tune`` see
# ``Delegate.connection_start``.
UNASKED_ON_CONNECTION = ("connection.start", "connection.close", "connection.blocked", "connection.unblocked")
UNASKED_ON_CHANNEL = ("channel.close", "channel.flow", "basic.cancel")
CLOSE = METHODS["channel.close"]
CLOSE_OK = METHODS["channel.close-ok"]


class Channel(AMQChannel):
    """One channel of an open connection.

    Attributes:
        closing: whether our close has been sent or the channel has ended. Then nothing more is sent on it: RabbitMQ
            ends the whole connection (504) for anything that comes on a channel after its close.
        queue: the one that its messages come from.
        rejects: False if a reject is to be an ack, as for a stream: there RabbitMQ closes the connection for one.
        patience: seconds that the broker may take for each answer, None for no limit. A request that takes longer fails
            with ``NotAnswered``, and the channel is of no more use: the broker does nothing else there meanwhile.
        prefetched: counts the bytes that are delivered and not settled; None if there is no limit.
        on_closed: called with the error when the channel ends, from either side.
        on_cancelled: called with the consumer tag when the broker cancels a consumer because its queue is gone.
        on_drained: called when every delivery is settled (acked or rejected).
        on_confirmed: called with a ``Publishing`` and None when the broker has it, or the error if it refuses it.
    """

    def __init__(self, id: int, outgoing: Any, client: Any) -> None:
        super().__init__(id, outgoing, client)
        self.closing = False
        self.queue = ""
        self.patience: float | None = None
        self.prefetched: Prefetched | None = None
        self.on_closed: Callable[[AmqpError], None] | None = None
        self.on_cancelled: Callable[[str], None] | None = None
        self.on_drained: Callable[[], None] | None = None
        self.on_confirmed: Callable[[Publishing, Exception | None], None] | None = None
        self.assembler = Assembler(self.method_received, skips=True)
        # The requests without an answer: the names of possible answers, and the Deferred that waits for one.
        self.replies: deque[tuple[tuple[str, ...], Deferred[TxMessage]]] = deque()
        self.reactions: dict[str, Callable[[Content], None]] = {
            "basic.deliver": self.deliver_received,
            "basic.ack": self.ack_received,
            "basic.nack": self.nack_received,
            "basic.return": self.return_received,
            **dict.fromkeys(UNASKED_ON_CHANNEL, self.to_delegate),
        }
        if id == 0:
            self.reactions = dict.fromkeys(UNASKED_ON_CONNECTION, self.to_delegate)
        self.consumers: dict[str, Callable[[Message], None]] = {}
        self.rejects = True
        # Deliveries. All tags up to settled_to are settled, and so are those in settled_above.
        self.unsettled = 0
        self.settled_to = 0
        self.settled_above: set[int] = set()
        self.acks: list[int] = []
        # Publishes by tag; and what came back of mandatory ones, by exchange and routing key, until its ack.
        self.published = 0
        self.unconfirmed: dict[int, Publishing] = {}
        self.returns: dict[tuple[str, str], list[Content]] = {}

    # Methods and their answers

    def invoke(self, method: Any, args: tuple[Any, ...], content: Any = None) -> Deferred[TxMessage | None]:
        """Send a method (txamqp's generated methods call this).

        Fires with the broker's answer, or at once with None for a method that isn't answered; fails with
        ``ChannelClosedByBroker``, ``ConnectionClosedByBroker``, ``ConnectionLost`` or ``NotAnswered``.
        """
        ours = METHODS_BY_ID[method.klass.id << 16 | method.id]
        if self.closed or (self.closing and ours is not CLOSE_OK):
            return fail(closed_error(self.reason or closed_here()))
        arguments = {name: value for (name, _), value in zip(ours.fields, args, strict=True)}
        payload = encode_method(ours, **arguments)
        if len(payload) > self.client.frame_max - FRAME_OVERHEAD:
            raise ValueError(f"{ours.name} has {len(payload)} bytes of arguments, a frame of AMQP can't carry them")
        self.client.write(frame(FRAME_METHOD, self.id, payload))
        if not ours.responses or arguments.get("nowait"):
            return succeed(None)
        reply: Deferred[TxMessage | None] = Deferred()
        self.replies.append((ours.responses, reply))
        # The number of a channel is free when its close is answered, and not before, however long that takes.
        if self.patience is not None and ours is not CLOSE:
            # an answer that comes later takes its place in replies, and Twisted drops it
            about = arguments.get("queue") or arguments.get("exchange") or ""
            reply.addTimeout(self.patience, self.client.clock, partial(not_answered, ours.name, about))
        return reply

    def method_received(self, content: Content) -> None:
        """Pass a whole method to whatever reacts to it, or to the Deferred that waits for this answer."""
        name = content.method.name
        react = self.reactions.get(name)
        if react is not None:
            react(content)
        elif self.replies and name in self.replies[0][0]:
            reply = self.replies.popleft()[1]
            if content.error is None:
                reply.callback(self.as_message(content))
            else:  # a basic.get-ok: whoever asked settles it, or closes the channel, and it goes back
                reply.errback(content.error)
        else:
            raise FrameError(ReplyCode.COMMAND_INVALID, f"{name} on channel {self.id} answers nothing that was asked")

    def to_delegate(self, content: Content) -> None:
        """Call the method of txamqp's delegate that bears this one's name."""
        self.client.delegate.dispatch(self, self.as_message(content))

    def as_message(self, content: Content) -> TxMessage:
        """A method as txamqp's delegates know it."""
        klass = self.client.spec.classes.byid[content.method.class_id]
        method = klass.methods.byid[content.method.method_id]
        return TxMessage(method, tuple(content.args.values()), content)

    def do_close(self, reason: Any) -> None:
        """The channel has ended: tell everyone who waits for something on it why."""
        first = not self.closed
        self.closing = True
        error = closed_error(reason)
        if first:
            super().do_close(reason)
            self.consumers.clear()
            self.acks.clear()
        replies, self.replies = self.replies, deque()
        for _, reply in replies:
            reply.errback(error)
        if first and self.on_closed is not None:
            self.on_closed(error)

    # Deliveries

    def consume(
        self, queue: str, tag: str, receive: Callable[[Message], None], arguments: Mapping[str, Any] = NOTHING
    ) -> Deferred[TxMessage]:
        """Have the queue's messages delivered to ``receive``, which is to ack each. Fires when the broker agrees."""
        consuming: Deferred[TxMessage] = self.basic_consume(queue=queue, consumer_tag=tag, arguments=dict(arguments))
        self.consumers[tag] = receive
        return consuming

    def get(self, queue: str) -> Deferred[Message | None]:
        """Take one message out of a queue; it is to be settled. Fires with None if there is none.

        Fails with ``FrameError`` for a message that can't be read. It stays unsettled, and goes back with the channel.
        """
        self.queue = queue
        getting: Deferred[TxMessage] = self.basic_get(queue=queue)
        return getting.addCallback(self.got)

    def got(self, answer: TxMessage) -> Message | None:
        content: Content = answer.content
        if content.method.name == "basic.get-empty":
            return None
        args = content.args
        where = args["exchange"], args["routing_key"], args["redelivered"], args["delivery_tag"]
        message = Message(content.body, content.properties, *where, "", self.settle)
        self.unsettled += 1
        return message

    def deliver_received(self, content: Content) -> None:
        args = content.args
        receive = self.consumers.get(args["consumer_tag"])
        if receive is None:
            return  # the consumer was cancelled: the message goes back to its queue when the channel closes
        self.unsettled += 1
        exchange, routing_key = args["exchange"], args["routing_key"]
        try:
            if not (routing_key.isascii() and exchange.isascii()):
                check_text(exchange, routing_key)
            message = Message(
                content.body,
                content.properties,
                exchange,
                routing_key,
                args["redelivered"],
                args["delivery_tag"],
                args["consumer_tag"],
                self.settle,
            )
        except FrameError as error:
            self.unreadable(args, error)
            return
        prefetched = self.prefetched
        over = False
        if prefetched is not None:
            prefetched.bytes += message.size
            over = prefetched.bytes > prefetched.bytes_max
            if over and prefetched.parks(message):
                return
        try:
            receive(message)
        except Exception:
            log.failure("{delivery} was not taken, rejected", delivery=message)
            message.reject()
        if over and prefetched is not None:
            prefetched.look()

    def unreadable(self, args: dict[str, Any], error: FrameError) -> None:
        """Reject a message that can't be read, and tell why: it costs itself alone."""
        log.error(
            "a message to {exchange!r} as {routing_key!r} can't be read, rejected: {error}",
            exchange=args["exchange"],
            routing_key=args["routing_key"],
            error=error,
        )
        Message(b"", {}, "", "", False, args["delivery_tag"], "", self.settle).reject()

    def settle(self, message: Message, ack: bool, requeue: bool) -> None:
        """Ack or reject a delivery: its message calls this, once. The acks of one reactor turn go out together."""
        # Not later than that: RabbitMQ confirms a persistent message to its publisher when it is acked, or on disk.
        # Acks held back longer made a service with a small prefetch, which acks a request when its reply is confirmed,
        # half as fast.
        prefetched = self.prefetched
        if prefetched is not None:
            prefetched.bytes -= message.size
            if prefetched.paused:
                prefetched.look()
        if self.closing:
            return
        self.unsettled -= 1
        tag = message.delivery_tag
        if tag == self.settled_to + 1:  # mostly: in the order of delivery
            self.settled_to = tag
        else:
            self.settled_above.add(tag)
        if ack or not self.rejects:
            if not self.acks:
                self.client.flush_soon(self)
            self.acks.append(tag)
        else:
            self.basic_reject(delivery_tag=tag, requeue=requeue)
            if observers.message_rejected:
                observers.tell(observers.message_rejected, self.queue, requeue)
        if not self.unsettled and self.on_drained is not None:
            self.flush_acks()
            self.on_drained()

    def flush_acks(self) -> None:
        """Send the acks that are due: one for all up to the first unsettled message, one each for those beyond."""
        if not self.acks or self.closing:
            return
        while self.settled_to + 1 in self.settled_above:
            self.settled_to += 1
            self.settled_above.remove(self.settled_to)
        acks, self.acks = sorted(self.acks), []
        together = bisect_right(acks, self.settled_to)  # how many of them one ack is for
        frames = [frame(FRAME_METHOD, self.id, encode_ack(acks[together - 1], True))] if together else []
        frames += [frame(FRAME_METHOD, self.id, encode_ack(tag, False)) for tag in acks[together:]]
        self.client.write(b"".join(frames))

    # Publishes

    def publish(self, publishing: Publishing) -> None:
        """Send a message on a channel in confirm mode; ``on_confirmed`` is called when the broker has answered."""
        self.published += 1
        self.unconfirmed[self.published] = publishing
        client = self.client
        client.write(content_frames(self.id, publishing.payload, publishing.header, publishing.body, client.frame_max))

    def ack_received(self, content: Content) -> None:
        args = content.args
        returns = self.returns
        if not (returns or args["multiple"]):  # mostly
            publishing = self.unconfirmed.pop(args["delivery_tag"], None)
            if publishing is not None and self.on_confirmed is not None:
                self.on_confirmed(publishing, None)
            return
        for publishing in self.pop_unconfirmed(args):
            error = self.undeliverable(publishing) if returns and publishing.mandatory else None
            if self.on_confirmed is not None:
                self.on_confirmed(publishing, error)
        if returns and not self.unconfirmed:
            returns.clear()

    def nack_received(self, content: Content) -> None:
        for publishing in self.pop_unconfirmed(content.args):
            if self.on_confirmed is not None:
                self.on_confirmed(publishing, PublishNacked(publishing.exchange, publishing.routing_key))

    def pop_unconfirmed(self, args: dict[str, Any]) -> list[Publishing]:
        """The publishes that an ack or nack answers for: one, or with ``multiple`` all up to its tag."""
        tag = args["delivery_tag"]
        unconfirmed = self.unconfirmed
        if not args["multiple"]:
            publishing = unconfirmed.pop(tag, None)
            return [] if publishing is None else [publishing]
        tags = []
        for each in unconfirmed:  # in the order of publishing
            if each > tag > 0:
                break
            tags.append(each)
        return [unconfirmed.pop(each) for each in tags]

    def return_received(self, content: Content) -> None:
        """Note that a message was undeliverable. Its ack comes next, or one for several messages; that reports it."""
        self.returns.setdefault((content.args["exchange"], content.args["routing_key"]), []).append(content)

    def undeliverable(self, publishing: Publishing) -> UndeliverableMessage | None:
        """The error of an acked message that was returned before; None if it was not."""
        returns = self.returns.get((publishing.exchange, publishing.routing_key), [])
        for index, content in enumerate(returns):  # in the order of publishing, as acks are read: mostly the first
            if may_be_return_of(content, publishing):
                args = returns.pop(index).args
                return UndeliverableMessage(
                    args["exchange"], args["routing_key"], args["reply_code"], args["reply_text"]
                )
        return None


def check_text(*names: str) -> None:
    """``FrameError`` for a name that is not UTF-8: AMQP allows any bytes, and a service's author expects a text."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FrameError(ReplyCode.SYNTAX_ERROR, f"{octets(name)!r} is not UTF-8") from None


def not_answered(method: str, about: str, _: Any, seconds: float) -> Failure:
    """The failure of a request whose channel has no more patience."""
    text = f"the broker has not answered {method} of {about!r} for {seconds:.1f} s: is a node of its cluster down?"
    return Failure(NotAnswered(0, text, method))


def closed_here() -> AmqpError:
    """The error of a channel that we closed ourselves."""
    return AmqpError(ReplyCode.REPLY_SUCCESS, "the channel was closed here", "channel.close")


def closed_error(reason: Any) -> AmqpError:
    """The error for a channel that has ended, made of the broker's close method or of the lost connection's reason."""
    if isinstance(reason, TxMessage):
        kind = ChannelClosedByBroker if reason.method.klass.name == "channel" else ConnectionClosedByBroker
        cause = METHODS_BY_ID.get(reason.class_id << 16 | reason.method_id)
        return kind(reason.reply_code, reason.reply_text, cause.name if cause is not None else None)
    if isinstance(reason, AmqpError):
        return reason
    error = reason.value if isinstance(reason, Failure) else reason
    return error if isinstance(error, AmqpError) else ConnectionLost(f"the connection to the broker was lost: {error}")
