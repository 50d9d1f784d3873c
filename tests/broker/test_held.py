"""What clients make the broker hold besides messages has a bound in bytes, and counts for as long as it is there."""

from __future__ import annotations

import tracemalloc
from typing import Any

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.peer import Client
from txservices.broker import channel, held

TABLE = {f"argument {number}": [None] * 10 for number in range(100)}
TO_QUEUE = {"queue": "q", "exchange": "x", "routing_key": "a.b"}
TO_DIRECT = {**TO_QUEUE, "exchange": "amq.direct"}
TO_EXCHANGE = {"destination": "y", "source": "x", "routing_key": "a.b"}
# what is made, and each way in which it ends
KINDS: list[tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]] = [
    ([("queue.declare", {"queue": "new"})], [("queue.delete", {"queue": "new"})]),
    ([("queue.declare", {"queue": "new", "arguments": TABLE})], [("queue.delete", {"queue": "new"})]),
    ([("queue.declare", {"queue": "ours", "exclusive": True})], [("queue.delete", {"queue": "ours"})]),
    (
        [("exchange.declare", {"exchange": "new", "type": "topic", "arguments": TABLE})],
        [("exchange.delete", {"exchange": "new"})],
    ),
    ([("queue.bind", TO_QUEUE)], [("queue.unbind", TO_QUEUE)]),
    ([("queue.bind", TO_QUEUE)] * 2, [("queue.unbind", TO_QUEUE)] * 2),
    ([("queue.bind", {**TO_QUEUE, "arguments": TABLE})], [("queue.unbind", {**TO_QUEUE, "arguments": TABLE})]),
    ([("queue.bind", TO_DIRECT)], [("queue.unbind", TO_DIRECT)]),
    ([("exchange.bind", TO_EXCHANGE)], [("exchange.unbind", TO_EXCHANGE)]),
    ([("basic.consume", {"queue": "q", "consumer_tag": "t"})], [("basic.cancel", {"consumer_tag": "t"})]),
    (
        [("basic.consume", {"queue": "amq.rabbitmq.reply-to", "consumer_tag": "r", "no_ack": True})],
        [("basic.cancel", {"consumer_tag": "r"})],
    ),
]  # fmt: skip


class HeldTests(SynchronousTestCase):
    """Channels, consumers, exchanges, queues and bindings."""

    def setUp(self) -> None:
        self.client = Client().open()
        self.vhost = self.client.broker.vhosts["/"]
        self.ask("queue.declare", queue="q")
        for name in ("x", "y"):
            self.ask("exchange.declare", exchange=name, type="topic")

    def ask(self, name: str, **arguments: Any) -> None:
        self.assertEqual(self.client.call(1, name, **arguments)[0], f"{name}-ok")

    def test_given_back(self) -> None:
        """What has ended counts no more, whether it is deleted or its channel, connection or destination is gone."""
        before = self.vhost.held.bytes
        for made, ends in KINDS:
            for name, arguments in made:
                self.ask(name, **arguments)
            self.assertGreater(self.vhost.held.bytes, before, made)
            for name, arguments in ends:
                self.ask(name, **arguments)
            self.assertEqual(self.vhost.held.bytes, before, made)
        for made, _ in KINDS:
            for name, arguments in made:
                self.ask(name, **arguments)
        self.client.method(1, "queue.delete", queue="q")
        self.ask("exchange.delete", exchange="y")
        self.ask("exchange.delete", exchange="x")
        self.ask("queue.delete", queue="new")
        self.ask("exchange.delete", exchange="new")
        self.client.call(2, "channel.open")
        self.client.call(1, "channel.close")
        self.assertEqual(self.vhost.held.bytes, held.CHANNEL_COST + held.QUEUE_COST)  # the exclusive one
        self.client.lose()
        self.assertEqual(self.vhost.held.bytes, 0)

    def test_refused(self) -> None:
        """Beyond the limit each is 406 and leaves nothing; a further channel is 506."""
        for made, _ in KINDS:
            with self.subTest(made=made):
                self.setUp()
                before = self.vhost.held.bytes
                self.patch(held, "HELD_MAX", before + 800)
                name, code, text = self.client.refusal(1, made[0][0], **made[0][1])
                self.assertEqual((name, code), ("channel.close", 406))
                self.assertIn("memory limit in vhost '/'", text)
                self.assertEqual(self.vhost.replies.queues, {})
                self.client.method(1, "channel.close-ok")
                self.assertEqual(self.vhost.held.bytes, before - held.CHANNEL_COST)
                for number in (2, 3):
                    self.client.method(number, "channel.open")
                self.assertEqual(self.client.sent()[-1][1], "connection.close")

    def test_what_is_there_goes_on(self) -> None:
        """At the limit, queues and bindings that are there can be declared again, and used."""
        self.ask("queue.bind", **TO_QUEUE)
        self.patch(held, "HELD_MAX", self.vhost.held.bytes)
        self.ask("queue.bind", **TO_QUEUE)
        self.ask("queue.declare", queue="q")
        self.ask("exchange.declare", exchange="x", type="topic")
        self.client.publish("q", b"still taken")

    def test_estimates(self) -> None:
        """What is counted is no less than the memory that is taken."""
        self.patch(channel, "log", Logger(observer=lambda event: None))  # a worker of trial -j keeps what is logged
        words = ".".join("w" * 50)
        takers: list[Any] = [
            lambda n: self.vhost.declare_queue(f"{n}".ljust(255, "x"), True, False, False, {}, False, None),
            lambda n: self.vhost.declare_exchange(f"{n}".ljust(255, "x"), "topic", True, False, False, {}, False),
            lambda n: self.vhost.bind("x", self.vhost.queues["q"], f"{n}.{words}", {}),
            lambda n: self.vhost.bind("amq.direct", self.vhost.queues["q"], f"{n}".ljust(255, "x"), {}),
            lambda n: self.vhost.bind("amq.direct", self.vhost.queues["q"], "", {f"{n}": [{} for _ in range(300)]}),
            lambda n: self.vhost.bind("amq.direct", self.vhost.queues["q"], "", {f"{n} {k}": None for k in range(300)}),
            lambda n: self.vhost.bind("amq.direct", self.vhost.queues["q"], "", {f"{n}": list(map(float, range(300)))}),
            lambda n: self.client.session.new_channel(n + 2),
            lambda n: self.client.call(1, "basic.consume", queue="q", consumer_tag=f"{n}".ljust(255, "x")),
        ]
        for place, take in enumerate(takers):
            beyond = []
            for first in (0, 40, 80):  # the first to come may fill caches, or have a table grow
                counted = self.vhost.held.bytes
                tracemalloc.start()
                for number in range(first, first + 40):
                    take(number)
                taken = tracemalloc.get_traced_memory()[0]
                tracemalloc.stop()
                beyond.append(taken - 1.1 * (self.vhost.held.bytes - counted))
            self.assertLessEqual(min(beyond), 0, place)
