"""One channel of a client: one Python method for each AMQP method, found by the table of ``wire.spec``.

    frame -> Publishes (an Assembler) -> Content -> REACTIONS[method] -> basic_publish(content) -> vhost
                                                    DECLARATIONS[method] -> Topology

AMQP's other methods are refused: ``tx.*`` as not implemented, the rest because only a server may send them. Queues call
``deliver`` to send a message to the client.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Protocol

from twisted.logger import Logger

from txservices.broker import messages
from txservices.broker.arguments import check_consumer
from txservices.broker.assemblers import ClosedChannel, Publishes
from txservices.broker.deliveries import UNACKED_MAX, Consumer, Deliveries, Entry, requeue
from txservices.broker.held import CONSUMER_COST
from txservices.broker.messages import DIRECT_REPLY_TO, Message
from txservices.broker.replies import refuse_second
from txservices.broker.topology import DECLARATIONS, Topology, reactions
from txservices.broker.vhost import VirtualHost
from txservices.exceptions import AmqpError
from txservices.utils.ids import new_id
from txservices.wire.codec import METHOD_ID, encode_ack
from txservices.wire.frames import Assembler, Content, content_frames, frame
from txservices.wire.spec import FRAME_METHOD, METHODS, ReplyCode
from txservices.wire.tables import encode_shortstr

log = Logger()

DELIVERY_TAG = Struct(">Q?")  # with the redelivered flag behind it, as in basic.deliver and basic.get-ok
DELIVER = METHOD_ID.pack(60, 60)
GET_OK = METHOD_ID.pack(60, 71)
RETURN = METHOD_ID.pack(60, 50)
NO_ROUTE = Struct(">H").pack(ReplyCode.NO_ROUTE) + encode_shortstr("NO_ROUTE")
MESSAGE_COUNT = Struct(">I")

REPLY_TEXT_MAX = 255  # bytes of a short string


class Connection(Protocol):
    """What a channel asks of the connection that it is on: a ``Session``."""

    vhost: VirtualHost
    user: str
    capabilities: dict[str, Any]  # the client's
    frame_max: int
    paused: bool  # the client reads too slowly
    unconfirmed: list[Channel]

    def write(self, data: bytes) -> None: ...

    def send(self, channel: int, method: str, **arguments: Any) -> None: ...

    def block(self) -> None: ...

    def forget(self, channel: Channel) -> None: ...


class Channel:
    """A channel from its first frame to its last. It is there before ``channel.open``, which it has to receive."""

    def __init__(self, number: int, session: Connection) -> None:
        self.number = number
        self.session = session
        self.vhost = session.vhost
        self.watermark = session.vhost.watermark
        self.assembler: Assembler = Publishes(self.method_received, self.vhost.publishes, self.watermark, session.block)
        self.is_open = False
        self.topology = Topology(self.vhost, session, self.answer)
        self.deliveries = Deliveries()
        self.deliveries.flowing = not session.paused
        self.consumers: dict[str, Consumer] = {}
        self.reply_to = ""  # the name by which replies reach its last consumer of Direct Reply-to
        self.consumer_prefetch = 0  # of consumers that are still to come
        self.confirms = False
        self.published = 0
        self.confirmed = 0

    def method_received(self, content: Content) -> None:
        name = content.method.name
        if not self.is_open and name != "channel.open":
            raise AmqpError(ReplyCode.CHANNEL_ERROR, f"{name} on channel {self.number}, which is not open", name)
        react = REACTIONS.get(name)
        try:
            if react is not None:
                react(self, content)
            elif name in DECLARATIONS:
                DECLARATIONS[name](self.topology, content)
            else:
                code = ReplyCode.NOT_IMPLEMENTED if name.startswith("tx.") else ReplyCode.COMMAND_INVALID
                raise AmqpError(code, f"{name} is not for the embedded broker")
        except AmqpError as error:
            error.method = error.method or name
            raise

    def answer(self, content: Content, method: str, **arguments: Any) -> None:
        if not content.args.get("nowait"):
            self.session.send(self.number, method, **arguments)

    # The channel itself

    def channel_open(self, content: Content) -> None:
        if self.is_open:
            raise AmqpError(ReplyCode.CHANNEL_ERROR, f"channel {self.number} is open already")
        self.is_open = True
        self.answer(content, "channel.open-ok")

    def channel_flow(self, content: Content) -> None:
        if not content.args["active"]:
            raise AmqpError(ReplyCode.NOT_IMPLEMENTED, "active=false: use a prefetch")
        self.answer(content, "channel.flow-ok", active=True)

    def update_flow(self) -> None:
        """Deliver only while the client reads."""
        self.deliveries.flowing = not self.session.paused
        if self.deliveries.flowing:
            self.deliveries.wake()

    def channel_close(self, content: Content) -> None:
        self.flush_confirms()
        self.cancel()
        self.session.forget(self)
        self.answer(content, "channel.close-ok")

    def close(self, error: AmqpError) -> None:
        """Close the channel for the client's mistake, and drop what it sends until it answers."""
        self.cancel()
        self.assembler = ClosedChannel(self.client_closed)
        self.session.send(self.number, "channel.close", **close_arguments(error))

    def client_closed(self, content: Content) -> None:
        """The client answers our close. If it has closed the channel itself meanwhile, its answer is still to come."""
        name = content.method.name
        if name == "channel.close":  # each side answers the other
            self.answer(content, "channel.close-ok")
        elif name == "channel.close-ok":
            self.session.forget(self)
        else:
            raise AmqpError(ReplyCode.CHANNEL_ERROR, "second 'channel.open' seen", name)

    def cancel(self) -> None:
        """Cancel all consumers, and requeue what they have not settled. A body that has not come whole is dropped."""
        self.assembler.join()
        self.deliveries.flowing = False  # of two that share a queue, the second gets nothing when the first is gone
        self.give_back()  # before the next single active consumer has its turn, which is to get these first
        consumers, self.consumers = self.consumers, {}
        self.vhost.held.give(CONSUMER_COST * len(consumers))
        for consumer in consumers.values():
            consumer.queue.remove(consumer)

    def give_back(self) -> None:
        """Requeue every unsettled delivery at its old place."""
        requeue(self.deliveries.settle(0, multiple=True))

    # Consumers

    def basic_qos(self, content: Content) -> None:
        """As RabbitMQ reads it: ``global`` limits the whole channel, otherwise each consumer that is still to come."""
        args = content.args
        if args["prefetch_size"]:
            raise AmqpError(ReplyCode.NOT_IMPLEMENTED, "prefetch by size: use prefetch_count")
        if args["global"]:
            self.deliveries.prefetch = args["prefetch_count"] or UNACKED_MAX
        else:
            self.consumer_prefetch = args["prefetch_count"]
        self.answer(content, "basic.qos-ok")
        self.deliveries.wake()

    def basic_consume(self, content: Content) -> None:
        args = content.args
        direct = args["queue"] == DIRECT_REPLY_TO
        if direct:
            refuse_second(self.vhost.replies.is_there(self.reply_to), args["no_ack"])
        tag = args["consumer_tag"] or f"amq.ctag-{new_id()}"
        if tag in self.consumers:
            raise AmqpError(ReplyCode.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
        priority = 0
        if direct:
            self.vhost.held.take("consume replies", CONSUMER_COST)
            queue = self.vhost.replies.open()
            self.reply_to = queue.name
        else:
            queue = self.topology.queue(content)
            called = self.vhost.called(queue)
            check_consumer(called, args["arguments"])
            queue.check_consume(called, args["exclusive"], self.deliveries.prefetch < UNACKED_MAX)
            priority = args["arguments"].get("x-priority", 0)
            self.vhost.held.take(f"consume {called}", CONSUMER_COST)
        consumer = self.consumers[tag] = Consumer(
            tag,
            queue,
            self.deliveries,
            self.deliver,
            self.cancelled,
            self.consumer_prefetch,
            args["no_ack"],
            args["exclusive"],
            priority,
        )
        log.debug("queue {queue!r} is consumed: {tag!r}", queue=queue.name, tag=tag)
        self.answer(content, "basic.consume-ok", consumer_tag=tag)  # before the first delivery
        queue.add(consumer)

    def basic_cancel(self, content: Content) -> None:
        """Cancel one consumer. The client can still settle what was delivered to it."""
        tag = content.args["consumer_tag"]
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            self.vhost.held.give(CONSUMER_COST)
            consumer.queue.remove(consumer)
        self.answer(content, "basic.cancel-ok", consumer_tag=tag)

    def cancelled(self, consumer: Consumer) -> None:
        """The consumer's queue is gone: tell the client, if it has said that it understands this."""
        if self.consumers.pop(consumer.tag, None) is not None:
            self.vhost.held.give(CONSUMER_COST)
        if self.session.capabilities.get("consumer_cancel_notify"):
            self.session.send(self.number, "basic.cancel", consumer_tag=consumer.tag, nowait=True)

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        deliveries = self.deliveries
        tag = deliveries.skip() if consumer.no_ack else deliveries.add(entry, consumer)
        message = entry.message
        header = entry.queue.header(entry) if entry.returned else message.header
        method = b"%b%b%b%b" % (
            DELIVER,
            consumer.short_tag,
            DELIVERY_TAG.pack(tag, entry.returned),
            message.address,
        )
        session = self.session
        session.write(content_frames(self.number, method, header, message.body, session.frame_max))

    def basic_get(self, content: Content) -> None:
        queue = self.topology.queue(content)
        queue.check_get(self.vhost.called(queue))
        deliveries = self.deliveries
        if len(deliveries.unacked) >= UNACKED_MAX:
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"over {UNACKED_MAX} messages unacked on this channel")
        entry = queue.get()
        if entry is None:
            self.answer(content, "basic.get-empty")
            return
        tag = deliveries.skip() if content.args["no_ack"] else deliveries.add(entry, None)
        message = entry.message
        header = entry.queue.header(entry) if entry.returned else message.header
        method = GET_OK + DELIVERY_TAG.pack(tag, entry.returned) + message.address + MESSAGE_COUNT.pack(len(queue))
        session = self.session
        session.write(content_frames(self.number, method, header, message.body, session.frame_max))

    # Settling

    def settle(self, content: Content, multiple: bool) -> list[Entry]:
        tag = content.args["delivery_tag"]
        try:
            return self.deliveries.settle(tag, multiple)
        except KeyError:
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"unknown delivery tag {tag}") from None

    def basic_ack(self, content: Content) -> None:
        self.settle(content, content.args["multiple"])
        self.deliveries.make_room()

    def basic_nack(self, content: Content) -> None:
        args = content.args
        entries = self.settle(content, args.get("multiple", False))
        if args["requeue"]:
            requeue(entries)
        else:
            for entry in entries:
                entry.queue.reject(entry)
        self.deliveries.make_room()

    basic_reject = basic_nack  # the same without "multiple"

    def basic_recover_async(self, content: Content) -> None:
        if not content.args["requeue"]:
            raise AmqpError(ReplyCode.NOT_IMPLEMENTED, "recover without requeue")
        self.give_back()
        self.deliveries.make_room()

    def basic_recover(self, content: Content) -> None:
        self.basic_recover_async(content)
        self.answer(content, "basic.recover-ok")

    # Publishing

    def confirm_select(self, content: Content) -> None:
        self.confirms = True
        self.answer(content, "confirm.select-ok")

    def basic_publish(self, content: Content) -> None:
        args = content.args
        if args["immediate"]:
            raise AmqpError(ReplyCode.NOT_IMPLEMENTED, "immediate=true")
        header = content.header
        flags = messages.read_flags(header)
        others: tuple[str, ...] = ()
        if flags & messages.UNUSUAL:
            header, others = messages.read_unusual(header, flags, self.session.user, self.find_reply_to)
        message = Message(
            args["exchange"],
            args["routing_key"],
            args["address"],
            header,
            content.body,
            messages.read_expiration(header, flags),
            others,
        )
        routed, taken = self.vhost.publish(message)
        if not routed and args["mandatory"]:
            session = self.session
            method = RETURN + NO_ROUTE + message.address
            session.write(content_frames(self.number, method, header, message.body, session.frame_max))
        if self.confirms:
            if self.published == self.confirmed:
                self.session.unconfirmed.append(self)
            if taken:
                self.published += 1
            else:
                self.refuse_publish()
        if self.watermark.alarmed:
            self.session.block()

    def find_reply_to(self) -> str:
        """The name by which replies reach this channel. ``PRECONDITION_FAILED`` if it has no consumer for them."""
        if not self.vhost.replies.is_there(self.reply_to):
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, "fast reply consumer does not exist")
        return self.reply_to

    def refuse_publish(self) -> None:
        """Nack a publish that a full queue refused, after the confirms of those before it."""
        self.flush_confirms()
        self.published += 1
        self.confirmed = self.published
        self.session.send(self.number, "basic.nack", delivery_tag=self.published)

    def flush_confirms(self) -> None:
        if self.published > self.confirmed:
            multiple = self.published > self.confirmed + 1
            self.session.write(frame(FRAME_METHOD, self.number, encode_ack(self.published, multiple)))
            self.confirmed = self.published


def close_arguments(error: AmqpError) -> dict[str, Any]:
    """An error as the arguments of ``channel.close`` or ``connection.close``. The text begins as RabbitMQ's does."""
    code = ReplyCode(error.code)
    text = f"{code.name} - {error.text}".encode(errors="replace")[:REPLY_TEXT_MAX]
    method = METHODS.get(error.method or "")
    return {
        "reply_code": int(code),
        "reply_text": text.decode(errors="ignore"),
        "class_id": method.class_id if method else 0,
        "method_id": method.method_id if method else 0,
    }


REACTIONS = reactions(Channel)
