"""The same conversations, byte for byte, with RabbitMQ and with the embedded broker: what is heard is compared.

pika (test_against_rabbitmq.py) says only what a good client says. Here is the rest: closes that cross, keys that are no
text, numbers nobody agreed on, a memory alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from tests.broker.wire import Heard, Wire
from txservices.broker.server import Broker

Connect = Callable[..., Wire]  # a new connection, its handshake done; arguments are those of Wire.open
Case = Callable[[Connect], Any]


def told(heard: list[Heard]) -> list[Any]:
    """What is compared of what was heard: names; the code of a close; what a delivery says, and its body."""
    return [(name, args.get("reply_code"), args.get("reason"), body) for _, name, args, body in heard]


CASES: dict[str, Case] = {}  # name -> the conversation


class ConversationsTests(TestCase):
    """The embedded broker talks as the real one."""

    skip = rabbitmq.skip
    timeout = 120

    async def setUp(self) -> None:
        self.broker = Broker()
        listening = await self.broker.listen("127.0.0.1", 0)
        self.port = listening.getHost().port
        self.addCleanup(self.broker.stop)
        self.threads = ThreadPool(1, 1)
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return deferToThreadPool(reactor, self.threads, function, *args)

    async def test_same(self) -> None:
        """Each conversation is the same on both."""
        node = rabbitmq.node()
        theirs = await self.in_thread(outcomes, node.port, node.new_vhost())
        ours = await self.in_thread(outcomes, self.port, "/")
        self.assertEqual({name: (ours[name], theirs[name]) for name in CASES if ours[name] != theirs[name]}, {})
        self.assertEqual(len(ours), len(CASES))

    async def test_memory_alarm(self) -> None:
        """Only who publishes is stopped, at its first publish, which is taken, and goes on when the alarm is over."""
        node = rabbitmq.mortal()

        def starve(alarmed: bool) -> None:
            node.ctl_now("set_vm_memory_high_watermark", "0.00001" if alarmed else "0.4")

        def fill(alarmed: bool) -> None:
            reactor.callFromThread(setattr, self.broker.watermark, "most", -1 if alarmed else 1 << 30)

        theirs = await self.in_thread(under_alarm, node.port, starve)
        ours = await self.in_thread(under_alarm, self.port, fill)
        self.assertEqual(ours, theirs)
        self.assertIn(("connection.blocked", None, "low on memory", b""), ours["publishes"])


def under_alarm(port: int, alarm: Callable[[bool], None]) -> dict[str, Any]:
    with connections(port, "/") as connect:
        idle, publisher = connect(), connect()
        for each, name in ((idle, "i"), (publisher, "p")):
            each.call(1, "queue.declare", queue=name, exclusive=True)
        alarm(True)
        found = {"at first": told(idle.rest() + publisher.rest())}
        found["publishes"] = told(publisher.publish("p", b"1").rest())
        found["asks"] = told(publisher.method(1, "basic.get", queue="p", no_ack=True).rest())
        found["does not publish"] = told(idle.method(1, "basic.get", queue="i").rest())
        found["comes later"] = told(connect().rest())
        alarm(False)
        found["afterwards"] = told(publisher.rest())
        return found


@contextmanager
def connections(port: int, vhost: str) -> Iterator[Connect]:
    """Gives the function that connects; all are closed in the end."""
    open_ones: list[Wire] = []

    def connect(**limits: int) -> Wire:
        open_ones.append(Wire(port, vhost))
        return open_ones[-1].open(**limits)

    try:
        yield connect
    finally:
        for each in open_ones:
            each.close()


def outcomes(port: int, vhost: str) -> dict[str, Any]:
    """What comes of each conversation."""
    found = {}
    for name, talk in CASES.items():
        with connections(port, vhost) as connect:
            found[name] = talk(connect)
    return found
