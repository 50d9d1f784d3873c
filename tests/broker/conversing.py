"""Shared by the tests that hold the same conversation with RabbitMQ and with the embedded broker."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from select import select
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from tests.broker.wire import QUIET, Heard, Wire
from txservices.broker.server import Broker
from txservices.wire.spec import PROTOCOL_HEADER

Connect = Callable[..., Wire]  # a new connection, its handshake done; arguments are those of Wire.open
Case = Callable[[Connect], Any]
Arguments = Mapping[str, Any]  # of a queue

QUORUM = {"x-queue-type": "quorum"}


def told(heard: list[Heard]) -> list[Any]:
    """The parts of an answer that are compared: names; the code of a close; a delivery's arguments and body."""
    return [(name, args.get("reply_code"), args.get("reason"), body) for _, name, args, body in heard]


names = map("q{}".format, count())


def declare(wire: Wire, arguments: Arguments = {}, durable: bool = True, **options: bool) -> str:  # noqa: B006 (only read)
    """A new queue."""
    name = next(names)
    wire.call(1, "queue.declare", queue=name, durable=durable, arguments=arguments, **options)
    return name


def publish(wire: Wire, queue: str, bodies: str, priorities: Iterable[int | None] = (), **properties: Any) -> None:
    """Publish a message of each character, and wait until the broker has all. Priorities are one for each."""
    wire.call(1, "confirm.select")
    for body, priority in zip(bodies, [*priorities] or [None] * len(bodies), strict=True):
        given = properties if priority is None else {"priority": priority, **properties}
        wire.publish(queue, body.encode(), **given)
        wire.wait("basic.ack")


def seen(heard: Heard) -> Any:
    """What is compared of a delivery: body, whether it comes again, how often it has; of all else, name and code."""
    _, name, args, body = heard
    if name not in ("basic.deliver", "basic.get-ok"):
        return (name, args.get("reply_code"))
    headers = args["properties"].get("headers") or {}
    return (body.decode(), args["redelivered"], headers.get("x-delivery-count") or 0)  # RabbitMQ 3 has 0, 4 nothing


def bodies(heard: Iterable[Heard]) -> str:
    return "".join(body.decode() for *_, body in heard)


def rests(wires: Sequence[Wire]) -> list[list[Heard]]:
    """What is still heard on each of these connections, until all of them are quiet."""
    open_ones = {wire.socket: wire for wire in wires if not wire.end}
    while ready := select([*open_ones], [], [], QUIET)[0]:
        for each in ready:
            if not open_ones[each].read(QUIET):
                del open_ones[each]
    found = [wire.heard for wire in wires]
    for wire in wires:
        wire.heard = []
    return found


def drain(wire: Wire, queue: str) -> list[Any]:
    """What is ready, taken out in order; the last is that there is no more."""
    found: list[Any] = []
    while not found or isinstance(found[-1][1], bool):
        found.append(seen(wire.call(1, "basic.get", queue=queue, no_ack=True)))
    return found


def consume(connect: Connect, queue: str, priority: int | None = None, prefetch: int = 0, **options: Any) -> Wire:
    """A new connection with a consumer."""
    wire = connect()
    wire.call(1, "basic.qos", prefetch_count=prefetch)
    arguments = {} if priority is None else {"x-priority": priority}
    wire.call(1, "basic.consume", queue=queue, consumer_tag="t", arguments=arguments, **options)
    return wire


def until_ready(wire: Wire, queue: str, messages: int = 1) -> None:
    """RabbitMQ takes its time for what comes back."""
    for _ in range(1000):
        if wire.call(1, "queue.declare", queue=queue, passive=True)[2]["message_count"] >= messages:
            return


@contextmanager
def connections(port: int, vhost: str) -> Iterator[Connect]:
    """Gives the function that connects. In the end all are closed in order: the next conversation names its exclusive
    queues as this one, and they are locked for as long as the connection that has declared them.
    """
    open_ones: list[Wire] = []

    def connect(**limits: int) -> Wire:
        open_ones.append(Wire(port, vhost))
        return open_ones[-1].open(**limits)

    try:
        yield connect
    finally:
        for each in open_ones:
            each.leave()


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
    """A broker of our own that listens, and threads for the blocking client."""

    skip = rabbitmq.skip
    timeout = 120
    # How many conversations each broker has at a time: several, since most of the time goes by in waiting for silence.
    lanes = 4

    async def setUp(self) -> None:
        self.broker, self.port = await self.embedded()
        self.threads = ThreadPool(2, 2 * self.lanes)
        self.threads.start()
        self.addCleanup(self.threads.stop)

    async def embedded(self) -> tuple[Broker, int]:
        """An embedded broker, and the port where it listens."""
        broker = Broker()
        self.addCleanup(broker.close)
        listening = await broker.listen("127.0.0.1", 0)
        return broker, listening.getHost().port

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return deferToThreadPool(reactor, self.threads, function, *args)

    async def compare(
        self, cases: Mapping[str, Case], before_4: Mapping[str, Any] = {}, since_4: Collection[str] = ()
    ) -> None:
        """Each conversation is the same on both.

        Args:
            before_4: outcomes on RabbitMQ 3, of conversations where the embedded broker does as RabbitMQ 4.
            since_4: more such conversations, whose outcomes on RabbitMQ 3 are only other ones.
        """
        node = rabbitmq.node()
        talking: tuple[list[Any], list[Any]] = ([], [])
        # Each lane has a virtual host and an embedded broker to itself, so that it hears nothing of the others.
        for lane in range(self.lanes):
            share = dict([*cases.items()][lane :: self.lanes])
            talking[0].append(self.in_thread(outcomes, share, node.port, node.new_vhost()))
            talking[1].append(self.in_thread(outcomes, share, (await self.embedded())[1], "/"))
        theirs, ours = [dict(ChainMap(*await gatherResults(lanes))) for lanes in talking]
        self.assertEqual(len(ours), len(cases))
        otherwise: set[str] = set()
        if await self.in_thread(major_version, node.port) < 4:
            ours.update(before_4)
            otherwise.update(since_4)
        different = {name: (ours[name], theirs[name]) for name in cases if ours[name] != theirs[name]}
        self.assertEqual({name: both for name, both in different.items() if name not in otherwise}, {})
        self.assertEqual(otherwise - set(different), set(), "the same on RabbitMQ 3 and 4")
