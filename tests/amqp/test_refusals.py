"""What a start says when the broker refuses a declaration: one line with what is really wrong, and what to do."""

from __future__ import annotations

from typing import Any

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp import refusals
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.exceptions import DeclarationMismatch, RefusedForNow
from txservices.testing.waiting import Heard

# what is declared -> a part of the line
REFUSED: tuple[tuple[Exchange | Queue, str], ...] = (
    (Queue("q", durable=False), r"^queue 'q' exists with other properties \(.*inequivalent arg 'durable'.*: delete it"),
    (Exchange("x", type="fanout"), r"^exchange 'x' exists with other properties \(.*'type'"),
    (
        Queue("bad", arguments={"x-max-length": -1}),
        r"^queue 'bad' is refused by the broker \(.*: correct its arguments",
    ),
    (Queue("bad", arguments={"x-message-ttl": "soon"}), r"^queue 'bad' is refused by the broker \(.*correct its"),
    (Queue("amq.mine"), r"^queue 'amq.mine' has a name of the broker's own \(.*: give it one that does not begin with"),
    (
        Queue("q" * 256),
        r"^queue 'q{60}…' has something that AMQP can't carry \(.* has 256 bytes.*: correct its names, ",
    ),
    (Queue("q", Exchange("x", type="t" * 256)), r"^exchange 'x' of queue 'q' has something that AMQP can't carry \("),
    (
        Queue("q", Exchange("y"), "k" * 256),
        r"^queue 'q' has something that AMQP can't carry \(.*256 bytes.*: correct its",
    ),
    (
        Queue("odd", arguments={"x-odd": object()}),
        r"^queue 'odd' has something that AMQP can't carry \(.*x-odd.*: correct",
    ),
    (
        Queue("odd", arguments={"x-odd": float("nan")}),
        r"^queue 'odd' has something that AMQP can't carry \(.*not finite",
    ),
    (Exchange("late", type="x-delayed-message"), r"^exchange 'late' is of a type that this broker does not have \("),
    (
        Queue("q2", Exchange("late", type="x-delayed-message"), "k"),
        r"^exchange 'late' of queue 'q2' is of a type that this broker does not have \(.*x-delayed-message.*enable the",
    ),
)


class Refusals(ServicesCase):
    """Declarations that can't succeed."""

    async def test_refusals(self) -> None:
        """Each ends in an error that tells its cause, when it is declared and when it is consumed."""
        publisher = self.connections().publisher
        await publisher.declare(Queue("q"), Exchange("x"))
        for entity, pattern in REFUSED:
            error = await self.assertFailure(publisher.declare(entity), DeclarationMismatch)
            self.assertRegex(str(error), pattern)
            self.assertEqual(len(str(error).splitlines()), 1)
            if isinstance(entity, Queue):
                await self.refused(entity, pattern)

    async def refused(self, queue: Queue, pattern: str, **config: Any) -> None:
        ready = self.connections(**config).consume(queue, Message.ack, 1).ready
        self.assertRegex(str(await self.assertFailure(ready, DeclarationMismatch)), pattern)

    async def test_consumers(self) -> None:
        """A consumer that can't be is told like a queue that can't be."""
        await self.connections().publisher.declare(Queue("read"))
        for queue, count, pattern in (
            (Queue("read", consumer_arguments={"x-priority": "high"}), 1, r"^queue 'read' is refused by the broker \("),
            (
                Queue("read", consumer_arguments={"x": object()}),
                1,
                r"^a consumer of queue 'read' has something that AMQP",
            ),
            (
                Queue("read"),
                70_000,
                r"^a consumer of queue 'read' has something that AMQP can't carry \(.*prefetch_count",
            ),
        ):
            ready = self.connections().consume(queue, Message.ack, count).ready
            self.assertRegex(str(await self.assertFailure(ready, DeclarationMismatch)), pattern)

    async def test_passive(self) -> None:
        """What somebody else is to declare is waited for, and each attempt says so."""
        publisher = self.connections().publisher
        queue, exchange = Queue("theirs", passive=True), Exchange("theirs", passive=True)
        for what, entity in (("queue", queue), ("exchange", exchange)):
            error = await self.assertFailure(publisher.declare(entity), RefusedForNow)
            self.assertRegex(
                str(error), rf"^{what} 'theirs' is not there \(NOT_FOUND .*\), and is declared by others: "
            )
        said = self.logged("is not there")
        self.patch(refusals, "PAUSE_FIRST", 0.02)
        consumer = self.connections().consume(queue, Message.ack, 1)
        declaring = publisher.declare_when_granted(exchange)
        for line in await said.wait(6):
            self.assertRegex(line, r"is declared by others: see whether they run\b.*\. Trying again in \d+\.\d s$")
        await publisher.declare(Queue("theirs"), Exchange("theirs"))
        await consumer.ready
        await declaring

    async def test_lost_later(self) -> None:
        """What is refused after the start is waited for, longer each time, with a line each time."""
        consumer = self.connections().consume(Queue("changed"), Message.ack, 1)
        await consumer.ready
        said = self.logged("exists with other properties")
        self.patch(refusals, "PAUSE_FIRST", 0.05)
        consumer.queue = Queue("changed", durable=False)
        consumer.cancel_received(consumer.tag)
        waits = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in await said.wait(4)]
        self.assertEqual((waits, len(set(waits)) > 1), (sorted(waits), True))
        back = Heard()
        consumer.on_ready.append(back)
        channel = await (await self.connections().consuming.when_connected()).open_channel()
        await channel.queue_delete(queue="changed")
        await back.wait()

    async def test_channels(self) -> None:
        """With more queues than a connection may have channels, one waits until a channel is free."""
        connections = self.connections()
        first = connections.consume(Queue("first"), Message.ack, 1)
        await first.ready
        assert connections.consuming.protocol is not None
        connections.consuming.protocol.channel_max = 1
        said = self.logged("all 1 channels of a connection are in use, .*: raise the broker's channel_max.* 0.5 s$")
        second = connections.consume(Queue("second"), Message.ack, 1)
        await said.wait()
        first.close()
        await second.ready


class RefusalsOfRabbitMQ(OnRabbitMQ, Refusals):
    """RabbitMQ's own, and what only it has."""

    async def test_permission(self) -> None:
        """A user who may not declare is told so at the start, with what to do."""
        self.node.new_user("reader", self.vhost_name, "^$")
        uri = self.node.uri(self.vhost_name, "reader", "s3cret")
        pattern = r"^queue 'q' may not be declared by our user \(.*: give it the permission \(rabbitmqctl"
        await self.refused(Queue("q"), pattern, AMQP_URI=uri)
        named_by_broker = Queue(durable=False, exclusive=True)
        pattern = r"^queue '' may not be declared by our user \(.*amq\.gen-.*: give it the permission \(rabbitmqctl"
        await self.refused(named_by_broker, pattern, AMQP_URI=uri)
        self.node.permit("reader", self.vhost_name, ".*", ".*", "^$")
        pattern = r"^queue 'q' may not be consumed by our user \(.*: give it the permission to read \(rabbitmqctl"
        await self.refused(Queue("q"), pattern, AMQP_URI=uri)
        self.node.permit("reader", self.vhost_name, ".*", "^q", ".*")
        pattern = r"^queue 'q2' hands messages on through the default exchange, and our user may not write to that \("
        await self.refused(Queue("q2", arguments={"x-dead-letter-exchange": ""}), pattern, AMQP_URI=uri)

    async def test_limit(self) -> None:
        """A virtual host that may have no more queues is waited for, with a line that says so."""
        self.node.limit(self.vhost_name, {"max-queues": 1})
        await self.connections().publisher.declare(Queue("one"))
        said = self.logged(r"queue 'two' is too many for its virtual host \(.*: raise the limit .* Trying again in")
        self.patch(refusals, "PAUSE_FIRST", 0.05)
        consumer = self.connections().consume(Queue("two"), Message.ack, 1)
        await said.wait(2)
        self.node.limit(self.vhost_name, {})
        await consumer.ready

    async def test_connections(self) -> None:
        """A virtual host that may have no more connections is waited for as well."""
        self.node.limit(self.vhost_name, {"max-connections": 0})
        said = self.logged(r"connection limit \(0\) is reached .*: raise the limit .*vhost_limits.* Trying again in")
        consumer = self.connections().consume(Queue("q"), Message.ack, 1)
        await said.wait(2)
        self.node.limit(self.vhost_name, {})
        await consumer.ready
