"""Shared by the tests that hold the same conversation with RabbitMQ and with the embedded broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from tests.broker.wire import Heard, Wire
from txservices.broker.server import Broker
from txservices.wire.spec import PROTOCOL_HEADER

Connect = Callable[..., Wire]  # a new connection, its handshake done; arguments are those of Wire.open
Case = Callable[[Connect], Any]


def told(heard: list[Heard]) -> list[Any]:
    """The parts of an answer that are compared: names; the code of a close; a delivery's arguments and body."""
    return [(name, args.get("reply_code"), args.get("reason"), body) for _, name, args, body in heard]


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


def outcomes(cases: Mapping[str, Case], port: int, vhost: str) -> dict[str, Any]:
    """The outcome of each conversation."""
    found = {}
    for name, talk in cases.items():
        with connections(port, vhost) as connect:
            found[name] = talk(connect)
    return found


def major_version(port: int) -> int:
    """The major version of the RabbitMQ at that port."""
    wire = Wire(port).say(PROTOCOL_HEADER)
    version: str = wire.wait("connection.start")[2]["server_properties"]["version"]
    wire.close()
    return int(version.split(".")[0])


class ConversationsCase(TestCase):
    """A broker of our own that listens, and a thread for the blocking client."""

    skip = rabbitmq.skip
    timeout = 120

    async def setUp(self) -> None:
        self.broker = Broker()
        listening = await self.broker.listen("127.0.0.1", 0)
        self.port = listening.getHost().port
        self.addCleanup(self.broker.close)
        self.threads = ThreadPool(1, 1)
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return deferToThreadPool(reactor, self.threads, function, *args)

    async def compare(self, cases: Mapping[str, Case], before_4: Mapping[str, Any] = {}) -> None:
        """Each conversation is the same on both.

        Args:
            before_4: outcomes on RabbitMQ 3, of conversations where the embedded broker does as RabbitMQ 4.
        """
        node = rabbitmq.node()
        theirs = await self.in_thread(outcomes, cases, node.port, node.new_vhost())
        ours = await self.in_thread(outcomes, cases, self.port, "/")
        self.assertEqual(len(ours), len(cases))
        if await self.in_thread(major_version, node.port) < 4:
            ours.update(before_4)
        self.assertEqual({name: (ours[name], theirs[name]) for name in cases if ours[name] != theirs[name]}, {})
