"""A virtual host: its exchanges and queues by name, what may be done with them, and the way of a message.

    publish(message) -> route -> Queue.put      a queue's dead letter -> route -> Queue.put

Whatever is not allowed raises ``AmqpError`` with AMQP's code and a text like RabbitMQ's, since clients read it. The
session answers it with ``channel.close`` or ``connection.close``. Pure: the clock is a function.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

from twisted.logger import Logger

from txservices.broker import messages
from txservices.broker.arguments import COMPARED, check_exchange, check_lasting, check_queue, require_same
from txservices.broker.assemblers import Decoded
from txservices.broker.bindings import X_MATCH, Destination
from txservices.broker.deliveries import Entry
from txservices.broker.exchanges import Exchange, in_order, route
from txservices.broker.held import EXCHANGE_COST, QUEUE_COST, Held, arguments_cost, binding_cost
from txservices.broker.kinds import kind_of
from txservices.broker.messages import Message
from txservices.broker.queues import Queue
from txservices.broker.replies import Replies
from txservices.broker.watermark import ENTRY_COST, MESSAGE_COST, Watermark
from txservices.exceptions import AmqpError, FrameError
from txservices.utils.ids import new_id
from txservices.wire.codec import decode_properties
from txservices.wire.spec import ReplyCode

log = Logger()

PREDEFINED = (
    ("", "direct"),
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.topic", "topic"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
)
RESERVED = "amq."  # names that clients may not make
QUEUES_MAX = 100_000  # queues of a virtual host
EXCHANGES_MAX = 10_000  # exchanges of a virtual host
BINDINGS_MAX = 100_000  # bindings of a virtual host, besides one of each queue to the default exchange
ROUTES_MAX = 10_000  # routing keys whose queues are remembered
ROUTED_MAX = 1_000_000  # places in these queues' lists together

Owner = Any  # the connection of an exclusive queue: only ever compared


class Published(NamedTuple):
    """What became of a message: whether any queue matched it, and whether all that matched took it."""

    routed: bool
    taken: bool


class VirtualHost:
    """Exchanges and queues that see each other.

    Args:
        seconds: the clock.
        watch: called with a queue that wants to be looked at by its ``deadline``.
        watermark: counts the messages of all virtual hosts of a broker.
    """

    def __init__(
        self,
        name: str,
        seconds: Callable[[], float],
        watch: Callable[[Queue], None],
        watermark: Watermark | None = None,
    ) -> None:
        self.name = name
        self.seconds = seconds
        self.watch = watch
        self.watermark = watermark or Watermark()
        self.replies = Replies(seconds, self.count)
        self.exchanges = {name: Exchange(name, type) for name, type in PREDEFINED}
        self.queues: dict[str, Queue] = {}
        self.bindings = 0  # how many there are, of exchanges that have a name
        self.owned: dict[Owner, dict[Queue, None]] = {}
        self.routes: dict[tuple[str, str], list[Queue]] = {}
        self.routed = 0  # how many places their lists have
        self.publishes: Decoded = {}
        self.held = Held(name)
        self.dead: deque[tuple[Entry, str]] = deque()

    # Messages

    def publish(self, message: Message) -> Published:
        """Put a message into every queue that it is routed to. ``NOT_FOUND`` if there is no such exchange."""
        queues = None if message.others else self.routes.get((message.exchange, message.routing_key))
        if queues is None:
            queues = self.find_route(message)
        taken = True
        if queues:
            self.count(message, len(queues))
        for queue in queues:
            taken = queue.put(message) and taken
        return Published(bool(queues), taken)

    def count(self, message: Message, copies: int) -> None:
        """Have the watermark count a message for as long as it is there."""
        message.watermark = watermark = self.watermark
        size = MESSAGE_COST + len(message.header) + len(message.body) + ENTRY_COST * copies
        watermark.held += size - message.size
        message.size = size
        if watermark.held > watermark.most:
            watermark.take(0)

    def find_route(self, message: Message) -> list[Queue]:
        exchange = self.find_exchange(message.exchange)
        if exchange.internal:
            raise AmqpError(ReplyCode.ACCESS_REFUSED, f"cannot publish to internal {self.called(exchange)}")
        queues, by_key_alone = self.route(exchange, message)
        if exchange.name == "" and self.replies.deliver(message):
            return queues  # not remembered, since the next one has to be delivered as well
        if by_key_alone:
            self.routed += len(queues)
            if len(self.routes) >= ROUTES_MAX or self.routed > ROUTED_MAX:
                self.forget_routes()
                self.routed = len(queues)
            self.routes[message.exchange, message.routing_key] = queues
        return queues

    def forget_routes(self) -> None:
        self.routes.clear()
        self.routed = 0

    def route(self, exchange: Exchange, message: Message) -> tuple[list[Queue], bool]:
        def headers() -> Mapping[str, Any]:
            return decode_properties(message.header).get("headers") or {}

        return route(exchange, (message.routing_key, *message.others), headers, self.exchanges.get)

    def bury(self, entry: Entry, reason: str) -> None:
        """Send a message that a queue has dropped to the queue's dead letter exchange, if it has one.

        A dead letter can push another one out of the queue that it goes to. They wait in line here, so that a long
        chain of queues does not overflow the stack.
        """
        if "x-dead-letter-exchange" not in entry.queue.arguments:
            return
        self.dead.append((entry, reason))
        if len(self.dead) > 1:
            return
        while self.dead:
            try:
                self.bury_now(*self.dead[0])
            except (FrameError, ValueError, TypeError) as error:
                # repr: a name may have line ends in it
                log.error("a dead letter of queue {queue!r} is lost: {error!r}", queue=entry.queue.name, error=error)
            finally:
                self.dead.popleft()

    def bury_now(self, entry: Entry, reason: str) -> None:
        queue = entry.queue
        exchange = self.exchanges.get(queue.arguments["x-dead-letter-exchange"])
        if exchange is None:
            return
        key = queue.arguments.get("x-dead-letter-routing-key")
        letter = messages.dead_letter(entry.message, reason, queue.name, exchange.name, key, time.time())
        targets = self.route(exchange, letter)[0]
        self.count(letter, len(targets))
        for target in targets:
            if not messages.goes_in_circles(letter, target.name):
                target.put(letter)

    # Exchanges

    def find_exchange(self, name: str) -> Exchange:
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise AmqpError(ReplyCode.NOT_FOUND, f"no exchange '{name}' in vhost '{self.name}'")
        return exchange

    def declare_exchange(
        self,
        name: str,
        type: str,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Mapping[str, Any],
        passive: bool,
    ) -> None:
        self.refuse_default(name)
        if passive:
            self.find_exchange(name)
            return
        exchange = self.exchanges.get(name)
        if exchange is not None:
            called = self.called(exchange)
            require_same(called, "type", type, exchange.type)
            require_same(called, "durable", durable, exchange.durable)
            require_same(called, "auto_delete", auto_delete, exchange.auto_delete)
            require_same(called, "internal", internal, exchange.internal)
            require_same(called, "alternate-exchange", arguments.get("alternate-exchange"), exchange.alternate)
            return
        self.refuse_reserved("exchange", name)
        check_exchange(f"exchange '{name}' in vhost '{self.name}'", type, arguments)
        self.refuse_more(f"declare exchange '{name}'", "exchange", len(self.exchanges), EXCHANGES_MAX)
        self.held.take(f"declare exchange '{name}'", EXCHANGE_COST + arguments_cost(arguments))
        self.exchanges[name] = Exchange(name, type, durable, auto_delete, internal, arguments)
        self.forget_routes()  # another exchange may name it as its alternate

    def delete_exchange(self, name: str, if_unused: bool = False) -> None:
        self.refuse_default(name)
        self.refuse_reserved("exchange", name)
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise AmqpError(ReplyCode.PRECONDITION_FAILED, f"{self.called(exchange)} in use")
        self.remove_exchange(exchange)

    def remove_exchange(self, exchange: Exchange) -> None:
        del self.exchanges[exchange.name]
        self.held.give(EXCHANGE_COST + arguments_cost(exchange.arguments))
        for binding in list(exchange.bindings.values()):
            self.undo(exchange, binding.destination, binding.key, binding.arguments)
        self.unbind_all(exchange)

    def bind(self, source: str, destination: Destination, key: str, arguments: Mapping[str, Any]) -> None:
        self.refuse_default(source)
        exchange = self.find_exchange(source)
        if exchange.type == "headers" and arguments.get("x-match", "all") not in list(X_MATCH):  # it may be a table
            raise AmqpError(
                ReplyCode.PRECONDITION_FAILED,
                f"invalid x-match {arguments['x-match']!r} for {self.called(exchange)}: one of {', '.join(X_MATCH)}",
            )
        if (destination, key, in_order(arguments)) not in exchange.bindings:
            self.refuse_more(f"bind to {self.called(exchange)}", "binding", self.bindings, BINDINGS_MAX)
            self.held.take(f"bind to {self.called(exchange)}", binding_cost(exchange.type, key, arguments))
            exchange.bind(destination, key, arguments)
            self.bindings += 1
            self.forget_routes()

    def unbind(self, source: str, destination: Destination, key: str, arguments: Mapping[str, Any]) -> None:
        self.refuse_default(source)
        exchange = self.exchanges.get(source)
        if exchange is not None and self.undo(exchange, destination, key, arguments):
            self.after_unbind(exchange)

    def undo(self, exchange: Exchange, destination: Destination, key: str, arguments: Mapping[str, Any]) -> bool:
        """Undo a binding. Gives whether there was one."""
        found = exchange.unbind(destination, key, arguments)
        if found and exchange.name:
            self.bindings -= 1
            self.held.give(binding_cost(exchange.type, key, arguments))
        return found

    def unbind_all(self, destination: Destination) -> None:
        """Undo all bindings to a queue or exchange that is being deleted."""
        for binding in list(destination.incoming):
            source = self.exchanges[binding.source]
            self.undo(source, destination, binding.key, binding.arguments)
            self.after_unbind(source)
        self.forget_routes()

    def after_unbind(self, exchange: Exchange) -> None:
        self.forget_routes()
        if exchange.auto_delete and not exchange.bindings and exchange.name in self.exchanges:
            self.remove_exchange(exchange)

    # Queues

    def find_queue(self, name: str, owner: Owner) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            raise self.no_queue(name)
        if queue.owner is not None and queue.owner is not owner:
            raise AmqpError(
                ReplyCode.RESOURCE_LOCKED,
                f"cannot obtain exclusive access to locked {self.called(queue)}: it is another connection's",
            )
        return queue

    def declare_queue(
        self,
        name: str,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any],
        passive: bool,
        owner: Owner,
    ) -> Queue:
        """The queue of that name, which is made if there is none; without a name, a new queue."""
        if passive or name in self.queues:
            queue = self.find_queue(name, owner)
            if not passive:
                if exclusive != (queue.owner is not None):
                    raise AmqpError(
                        ReplyCode.RESOURCE_LOCKED,
                        f"cannot obtain exclusive access to locked {self.called(queue)}: it exists, and"
                        f" exclusive='{str(not exclusive).lower()}'",
                    )
                self.require_equivalent(queue, durable, auto_delete, arguments)
                queue.used()
            return queue
        if name:
            self.refuse_reserved("queue", name)
        called = f"queue '{name}' in vhost '{self.name}'"
        check_queue(called, arguments)
        check_lasting(called, name, durable, exclusive, auto_delete, arguments)
        name = name or f"amq.gen-{new_id()}"
        self.refuse_more(f"declare queue '{name}'", "queue", len(self.queues), QUEUES_MAX)
        self.held.take(f"declare queue '{name}'", QUEUE_COST + arguments_cost(arguments))
        kind = kind_of(arguments)
        queue = kind(name, durable, owner if exclusive else None, auto_delete, arguments, self.seconds)
        queue.dead_letter = self.bury
        queue.watch = self.watch
        queue.unused = self.delete_queue
        self.queues[name] = queue
        if exclusive:
            self.owned.setdefault(owner, {})[queue] = None
        self.exchanges[""].bind(queue, name, {})
        self.forget_routes()
        queue.used()
        return queue

    def require_equivalent(self, queue: Queue, durable: bool, auto_delete: bool, arguments: Mapping[str, Any]) -> None:
        called = self.called(queue)
        require_same(called, "durable", durable, queue.durable)
        require_same(called, "auto_delete", auto_delete, queue.auto_delete)
        for argument, default in COMPARED.items():
            require_same(called, argument, arguments.get(argument, default), queue.arguments.get(argument, default))

    def delete_queue(self, queue: Queue) -> None:
        """Delete a queue with its messages, and tell its consumers."""
        if queue.deleted:
            return
        queue.deleted = True
        del self.queues[queue.name]
        self.held.give(QUEUE_COST + arguments_cost(queue.arguments))
        self.unbind_all(queue)
        if queue.owner is not None:
            del self.owned[queue.owner][queue]
        queue.purge()
        queue.expires_at = inf
        for consumer in list(queue.consumers):
            queue.remove(consumer)
            consumer.cancelled(consumer)

    def forget_owner(self, owner: Owner) -> None:
        """Delete the exclusive queues of a connection that is gone."""
        for queue in list(self.owned.get(owner, ())):
            self.delete_queue(queue)
        self.owned.pop(owner, None)

    # Names

    def no_queue(self, name: str) -> AmqpError:
        return AmqpError(ReplyCode.NOT_FOUND, f"no queue '{name}' in vhost '{self.name}'")

    def called(self, thing: Destination) -> str:
        kind = "exchange" if isinstance(thing, Exchange) else "queue"
        return f"{kind} '{thing.name}' in vhost '{self.name}'"

    def refuse_more(self, what: str, kind: str, count: int, most: int) -> None:
        if count >= most:
            raise AmqpError(
                ReplyCode.PRECONDITION_FAILED,
                f"cannot {what}: {kind} limit in vhost '{self.name}' ({most}) is reached",
            )

    def refuse_default(self, exchange: str) -> None:
        if exchange == "":
            raise AmqpError(ReplyCode.ACCESS_REFUSED, "operation not permitted on the default exchange")

    def refuse_reserved(self, kind: str, name: str) -> None:
        if name.startswith(RESERVED):
            raise AmqpError(
                ReplyCode.ACCESS_REFUSED, f"{kind} name '{name}' begins with '{RESERVED}', which is the broker's own"
            )
