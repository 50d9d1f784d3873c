"""What a start says when the broker refuses a declaration: one line with what is really wrong, and what to do."""

from __future__ import annotations

from typing import Any

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.exceptions import ChannelClosedByBroker, DeclarationMismatch

# what is declared -> a part of the line
REFUSED: tuple[tuple[Exchange | Queue, str], ...] = (
    (Queue("q", durable=False), r"^queue 'q' exists with other properties \(.*inequivalent arg 'durable'.*: delete it"),
    (Exchange("x", type="fanout"), r"^exchange 'x' exists with other properties \(.*'type'"),
    (
        Queue("bad", arguments={"x-max-length": -1}),
        r"^queue 'bad' is refused by the broker \(.*: correct its arguments",
    ),
    (Queue("bad", arguments={"x-message-ttl": "soon"}), r"^queue 'bad' is refused by the broker \(.*correct its"),
    (Exchange("late", type="x-delayed-message"), r"^exchange 'late' is of a type that this broker does not have \("),
    (
        Queue("q2", Exchange("late", type="x-delayed-message"), "k"),
        r"^queue 'q2' is of a type that this broker does not have \(.*x-delayed-message.*enable the plugin",
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

    async def test_passive(self) -> None:
        """A queue that somebody else is to declare is waited for."""
        publisher = self.connections().publisher
        await self.assertFailure(publisher.declare(Queue("theirs", passive=True)), ChannelClosedByBroker)
        consumer = self.connections().consume(Queue("theirs", passive=True), Message.ack, 1)
        await publisher.declare(Queue("theirs"))
        await consumer.ready


class RefusalsOfRabbitMQ(OnRabbitMQ, Refusals):
    """RabbitMQ's own, and what only it has."""

    async def test_permission(self) -> None:
        """A user who may not declare is told so at the start, with what to do."""
        await self.node.ctl("add_user", "reader", "s3cret")
        await self.node.ctl("set_permissions", "-p", self.vhost_name, "reader", "^$", ".*", ".*")
        uri = self.node.uri(self.vhost_name, "reader", "s3cret")
        pattern = r"^queue 'q' may not be declared by our user \(.*: give it the permission \(rabbitmqctl"
        await self.refused(Queue("q"), pattern, AMQP_URI=uri)

    async def test_limit(self) -> None:
        """A virtual host that may have no more queues is told as such."""
        await self.node.ctl("set_vhost_limits", "-p", self.vhost_name, '{"max-queues": 1}')
        await self.connections().publisher.declare(Queue("one"))
        await self.refused(Queue("two"), r"^queue 'two' is too many for its virtual host \(.*: raise the limit")
