"""Any methods in any order, from several clients that come and go: the broker's books are right after each of them.

Reproducible: a failure names its seed.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client, publish
from tests.peer import method
from txservices.broker.messages import DIRECT_REPLY_TO
from txservices.broker.server import Broker
from txservices.wire.spec import METHODS

NAMES = ("", "q", "r", "x", "y", "t", "amq.topic", "amq.headers", "direct", "topic", "fanout", "headers")
ARGUMENTS = (
    "x-expires",
    "x-message-ttl",
    "x-max-length",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-match",
    "a",
    "x-queue-type",
    "x-delivery-limit",
    "x-max-priority",
    "x-single-active-consumer",
    "x-priority",
)
VALUES: tuple[Any, ...] = (
    0,
    1,
    100,
    "",
    "q",
    "x",
    "any",
    "quorum",
    "reject-publish",
    "reject-publish-dlx",
    [1],
    {"a": []},
    None,
    True,
    1.5,
    b"\xff",
)
# What clients say of queues, exchanges and messages; channel and connection have tests of their own.
SAID = [
    spec
    for name, spec in METHODS.items()
    if name.split(".")[0] in ("queue", "exchange", "basic", "confirm") and not spec.content and not name.endswith("ok")
]


class Chance(random.Random):
    """Methods out of nowhere."""

    replies: tuple[str, ...] = ()  # names that direct replies have

    def argument(self, kind: str) -> Any:
        return {
            "bit": lambda: self.random() < 0.5,
            "short": lambda: self.choice((0, 1, 2, 60_000)),
            "long": lambda: self.choice((0, 0, 0, 1)),
            "longlong": lambda: self.choice((0, 1, 2, 3, 1 << 40)),
            "shortstr": lambda: self.choice((*NAMES, DIRECT_REPLY_TO)),
            "octets": lambda: self.choice(NAMES),
            "table": lambda: {self.choice(ARGUMENTS): self.choice(VALUES) for _ in range(self.randrange(3))},
        }[kind]()

    def said(self) -> bytes:
        channel = self.choice((1, 1, 1, 2))
        if self.random() < 0.5:
            properties: dict[str, Any] = {}
            if self.random() < 0.3:
                properties["headers"] = self.argument("table")
            if self.random() < 0.3:
                properties["expiration"] = self.choice(("0", "100", "soon"))
            if self.random() < 0.2:
                properties["reply_to"] = self.choice((DIRECT_REPLY_TO, "q"))
            if self.random() < 0.2:
                copies = [self.choice((*NAMES, *self.replies)) for _ in range(3)]
                properties["headers"] = {self.choice(("CC", "BCC")): copies}
            if self.random() < 0.3:
                properties["priority"] = self.choice((0, 1, 9))
            body = b"x" * self.choice((0, 1, 5000))
            key = self.choice((*NAMES, *self.replies))
            return publish(key, body, self.choice(NAMES), channel, self.random() < 0.3, **properties)
        spec = self.choice(SAID)
        return method(channel, spec.name, **{name: self.argument(kind) for name, kind in spec.fields})


class AnyOrderTests(SynchronousTestCase):
    """The broker's books."""

    def check(self, broker: Broker, clients: list[Client], seed: int) -> None:
        vhost = broker.vhosts["/"]
        for queue in (*vhost.queues.values(), *vhost.replies.queues.values()):
            ready = [*queue.fresh, *(entry for _, entry in queue.requeued)]
            self.assertEqual(queue.ready_bytes, sum(len(entry.message.body) for entry in ready), seed)
            self.assertLessEqual(set(queue.turn), set(queue.consumers), seed)
            single = queue.single
            if single is not None:
                self.assertLessEqual(set(queue.turn), {single.active}, seed)
            for consumer in queue.consumers:
                if single is not None and (consumer is not single.active or single.choose(queue.consumers) is None):
                    continue
                self.assertNotEqual(consumer.in_turn, consumer in consumer.deliveries.without_room, seed)
                self.assertFalse(
                    ready and consumer.has_room(), f"{queue.name} has messages and {consumer.tag} room: {seed}"
                )
        for client in clients:
            for channel in client.session.channels.values():
                deliveries = channel.deliveries
                given = [entry.consumer for entry in deliveries.unacked.values() if entry.consumer is not None]
                self.assertEqual(deliveries.counted, len(given), seed)
                for consumer in deliveries.without_room:
                    self.assertIn(consumer, consumer.queue.consumers, seed)
                for consumer in channel.consumers.values():
                    self.assertEqual(consumer.unacked, given.count(consumer), seed)

    def test_any_order(self) -> None:
        """No sequence is a bug of ours, leaves a message beside a consumer with room, or loses count."""
        for seed in range(20):
            chance = Chance(seed)
            broker = Broker(clock=Clock())
            clients: list[Client] = []
            for _ in range(100):
                if len(clients) < 3:
                    clients.append(Client(broker).open())
                    clients[-1].method(2, "channel.open")
                client = chance.choice(clients)
                if client.session.paused:
                    client.session.resumeProducing()
                elif chance.random() < 0.05:
                    client.session.pauseProducing()
                chance.replies = tuple(broker.vhosts["/"].replies.queues)
                client.write(b"".join(chance.said() for _ in range(chance.randrange(1, 5))))
                broker.clock.advance(chance.choice((0, 0, 0.1, 0.2)))
                for each in list(clients):
                    if not self.answer(each, seed):
                        clients.remove(each)
                if chance.random() < 0.02 and clients:
                    clients.pop().lose()
                self.check(broker, clients, seed)
            for client in clients:
                client.lose()
            self.assertEqual(broker.clock.getDelayedCalls(), [], seed)
            self.assertEqual(broker.vhosts["/"].replies.queues, {}, seed)

    def answer(self, client: Client, seed: int) -> bool:
        """Do as a client does that is told of errors. Gives whether it is still there."""
        for number, name, args in client.sent():
            if name == "connection.close":
                self.assertNotEqual(args["reply_code"], 541, seed)
                client.method(0, "connection.close-ok")
                client.lose()
                return False
            if name == "channel.close":
                client.method(number, "channel.close-ok")
                client.method(number, "channel.open")
        return True
