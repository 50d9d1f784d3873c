"""What a client declares, binds, deletes and purges on a channel: a Python method for each AMQP method.

An empty name of a queue means the queue that the channel declared last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from txservices.broker.messages import DIRECT_REPLY_TO
from txservices.broker.queues import Queue
from txservices.broker.vhost import Owner, VirtualHost
from txservices.exceptions import AmqpError
from txservices.wire.frames import Content
from txservices.wire.spec import METHODS, ReplyCode


class Answer(Protocol):
    """Sends the answer to a method, unless its client wants no answer."""

    def __call__(self, content: Content, method: str, **arguments: Any) -> None: ...


class Topology:
    """The virtual host as one channel of a client sees and changes it."""

    def __init__(self, vhost: VirtualHost, owner: Owner, answer: Answer) -> None:
        self.vhost = vhost
        self.owner = owner
        self.answer = answer
        self.last_queue = ""

    # Exchanges

    def exchange_declare(self, content: Content) -> None:
        args = content.args
        self.vhost.declare_exchange(
            args["exchange"],
            args["type"],
            args["durable"],
            args["auto_delete"],
            args["internal"],
            args["arguments"],
            args["passive"],
        )
        self.answer(content, "exchange.declare-ok")

    def exchange_delete(self, content: Content) -> None:
        self.vhost.delete_exchange(content.args["exchange"], content.args["if_unused"])
        self.answer(content, "exchange.delete-ok")

    def exchange_bind(self, content: Content) -> None:
        args = content.args
        self.vhost.refuse_default(args["destination"])
        destination = self.vhost.find_exchange(args["destination"])
        self.vhost.bind(args["source"], destination, args["routing_key"], args["arguments"])
        self.answer(content, "exchange.bind-ok")

    def exchange_unbind(self, content: Content) -> None:
        args = content.args
        self.vhost.refuse_default(args["destination"])
        destination = self.vhost.exchanges.get(args["destination"])
        if destination is not None:  # else there is nothing to undo
            self.vhost.unbind(args["source"], destination, args["routing_key"], args["arguments"])
        self.answer(content, "exchange.unbind-ok")

    # Queues

    def queue_declare(self, content: Content) -> None:
        args = content.args
        if args["queue"].startswith(DIRECT_REPLY_TO):
            self.declare_replies(content)
            return
        queue = self.vhost.declare_queue(
            args["queue"],
            args["durable"],
            args["exclusive"],
            args["auto_delete"],
            args["arguments"],
            args["passive"],
            self.owner,
        )
        self.last_queue = queue.name
        self.answer(
            content,
            "queue.declare-ok",
            queue=queue.name,
            message_count=len(queue),
            consumer_count=queue.consumer_count,
        )

    def declare_replies(self, content: Content) -> None:
        """Tell a client whether replies to a name that a reply-to had find their consumer."""
        name = content.args["queue"]
        if not self.vhost.replies.is_there(name):
            raise self.vhost.no_queue(name)
        self.answer(content, "queue.declare-ok", queue=name, message_count=0, consumer_count=1)

    def queue(self, content: Content) -> Queue:
        """The queue that a method is about; with no name, the one declared last on this channel."""
        name = content.args["queue"] or self.last_queue
        if not name:
            raise AmqpError(ReplyCode.NOT_FOUND, "no previously declared queue")
        return self.vhost.find_queue(name, self.owner)

    def routing_key(self, content: Content) -> str:
        """The routing key; if a method names neither queue nor key, it is the name of the queue declared last."""
        args = content.args
        key: str = args["routing_key"]
        return self.last_queue if not key and not args["queue"] else key

    def queue_bind(self, content: Content) -> None:
        args = content.args
        self.vhost.bind(args["exchange"], self.queue(content), self.routing_key(content), args["arguments"])
        self.answer(content, "queue.bind-ok")

    def queue_unbind(self, content: Content) -> None:
        args = content.args
        if (args["queue"] or self.last_queue) in self.vhost.queues:  # else there is nothing to undo
            self.vhost.unbind(args["exchange"], self.queue(content), self.routing_key(content), args["arguments"])
        self.answer(content, "queue.unbind-ok")

    def queue_purge(self, content: Content) -> None:
        self.answer(content, "queue.purge-ok", message_count=self.queue(content).purge())

    def queue_delete(self, content: Content) -> None:
        args = content.args
        name = args["queue"] or self.last_queue
        count = 0
        if name in self.vhost.queues:  # RabbitMQ takes it for no error to delete a queue that isn't there
            queue = self.queue(content)
            count = len(queue)
            queue.check_delete(self.vhost.called(queue), args["if_unused"], args["if_empty"])
            self.vhost.delete_queue(queue)
        self.answer(content, "queue.delete-ok", message_count=count)


Reaction = Callable[[Any, Content], None]


def reactions(of: type) -> dict[str, Reaction]:
    """The Python method of a class for each AMQP method that has one there."""
    found = {}
    for name in METHODS:
        function = vars(of).get(name.replace(".", "_").replace("-", "_"))
        if function is not None:
            found[name] = function
    return found


DECLARATIONS = reactions(Topology)
