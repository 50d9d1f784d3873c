"""The same things done with pika on RabbitMQ and on the embedded broker: the outcomes are compared.

Codes always; texts where clients read them (what differs in a declaration, what is missing); and the headers of dead
letters whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker
from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from tests import rabbitmq
from txservices.broker.server import Broker

Case = Callable[[BlockingChannel], Any]
SAME_TEXT = re.compile("inequivalent arg|no queue|no exchange|unknown delivery tag|in use|not empty|vhost .* not found")
# What RabbitMQ 3 does otherwise than 4: the embedded broker does as 4.
BEFORE_4 = {"exchange type unknown": ("ConnectionClosedByBroker", 503, "")}
SINCE_4 = ("x-last-death-reason", "x-last-death-queue", "x-last-death-exchange")
DEADLINE = 60  # seconds for a message to come through

D = {"durable": True}
# name -> what is done on a new channel. There are queue d (durable), queue e (x-expires), exchange x (topic), and
# exchange i (internal).
CASES: dict[str, Case] = {
    "passive queue": lambda ch: ch.queue_declare("none", passive=True),
    "passive exchange": lambda ch: ch.exchange_declare("none", passive=True),
    "same queue": lambda ch: ch.queue_declare("d", **D),
    "not durable": lambda ch: ch.queue_declare("d"),
    "auto delete": lambda ch: ch.queue_declare("d", durable=True, auto_delete=True),
    "argument added": lambda ch: ch.queue_declare("d", durable=True, arguments={"x-expires": 3000}),
    "argument changed": lambda ch: ch.queue_declare("e", arguments={"x-expires": 4000}),
    "argument left out": lambda ch: ch.queue_declare("e"),
    "argument unknown": lambda ch: ch.queue_declare("d", durable=True, arguments={"foo": 5}),
    "argument text": lambda ch: ch.queue_declare("d", durable=True, arguments={"x-dead-letter-exchange": "a"}),
    "expires 0": lambda ch: ch.queue_declare("z", arguments={"x-expires": 0}),
    "expires text": lambda ch: ch.queue_declare("z", arguments={"x-expires": "a"}),
    "ttl below 0": lambda ch: ch.queue_declare("z", arguments={"x-message-ttl": -1}),
    "overflow unknown": lambda ch: ch.queue_declare("z", arguments={"x-overflow": "foo"}),
    "dead key alone": lambda ch: ch.queue_declare("z", arguments={"x-dead-letter-routing-key": "k"}),
    "become exclusive": lambda ch: ch.queue_declare("d", durable=True, exclusive=True),
    "exclusive no more": lambda ch: [ch.queue_declare("own", exclusive=True), ch.queue_declare("own")],
    "reserved queue": lambda ch: ch.queue_declare("amq.q"),
    "reserved exchange": lambda ch: ch.exchange_declare("amq.x"),
    "predefined": lambda ch: ch.exchange_declare("amq.topic", "topic", **D),
    "predefined otherwise": lambda ch: ch.exchange_declare("amq.topic", "direct", **D),
    "predefined deleted": lambda ch: ch.exchange_delete("amq.topic"),
    "default declared": lambda ch: ch.exchange_declare("", "direct"),
    "default passive": lambda ch: ch.exchange_declare("", "direct", passive=True),
    "default deleted": lambda ch: ch.exchange_delete(""),
    "default bound": lambda ch: ch.queue_bind("d", "", "k"),
    "default unbound": lambda ch: ch.queue_unbind("d", "", "d"),
    "exchange type": lambda ch: ch.exchange_declare("x", "fanout"),
    "exchange type unknown": lambda ch: ch.exchange_declare("y", "foo"),
    "exchange durable": lambda ch: ch.exchange_declare("x", "topic", **D),
    "exchange auto delete": lambda ch: ch.exchange_declare("x", "topic", auto_delete=True),
    "exchange internal": lambda ch: ch.exchange_declare("x", "topic", internal=True),
    "exchange alternate": lambda ch: ch.exchange_declare("x", "topic", arguments={"alternate-exchange": "f"}),
    "delete no exchange": lambda ch: ch.exchange_delete("none"),
    "delete no queue": lambda ch: ch.queue_delete("none"),
    "delete used exchange": lambda ch: [ch.queue_bind("d", "x", "k"), ch.exchange_delete("x", if_unused=True)],
    "delete full queue": lambda ch: [ch.basic_publish("", "d", b""), ch.queue_delete("d", if_empty=True)],
    "delete used queue": lambda ch: [ch.basic_consume("e", print), ch.queue_delete("e", if_unused=True)],
    "unbind nothing": lambda ch: ch.queue_unbind("d", "x", "other"),
    "unbind no exchange": lambda ch: ch.queue_unbind("d", "none", "k"),
    "unbind no queue": lambda ch: ch.queue_unbind("none", "x", "k"),
    "bind no exchange": lambda ch: ch.queue_bind("d", "none", "k"),
    "bind no queue": lambda ch: ch.queue_bind("none", "x", "k"),
    "bind exchange to none": lambda ch: ch.exchange_bind("x", "none", "k"),
    "bad x-match": lambda ch: ch.queue_bind("d", "amq.headers", "", arguments={"x-match": "foo"}),
    "purge no queue": lambda ch: ch.queue_purge("none"),
    "consume no queue": lambda ch: ch.basic_consume("none", print),
    "get no queue": lambda ch: ch.basic_get("none"),
    "consume exclusively": lambda ch: [ch.basic_consume("e", print), ch.basic_consume("e", print, exclusive=True)],
    "publish to none": lambda ch: ask_after(ch.basic_publish("none", "k", b""), ch),
    "publish to internal": lambda ch: ask_after(ch.basic_publish("i", "k", b""), ch),
    "expiration": lambda ch: ask_after(ch.basic_publish("", "k", b"", pika.BasicProperties(expiration="a")), ch),
    "user id": lambda ch: ask_after(ch.basic_publish("", "k", b"", pika.BasicProperties(user_id="a")), ch),
    "ack nothing": lambda ch: ask_after(ch.basic_ack(5), ch),
    "ack 0": lambda ch: ask_after(ch.basic_ack(0), ch),
    "ack all of none": lambda ch: ask_after(ch.basic_ack(0, multiple=True), ch),
    "ack twice": lambda ch: [got(ch), ch.basic_ack(1), ask_after(ch.basic_ack(1, multiple=True), ch)],
    "prefetch size": lambda ch: ch.basic_qos(prefetch_size=10),
    "recover without requeue": lambda ch: ch.basic_recover(False),
    "long name": lambda ch: ch.queue_declare("q" * 255, exclusive=True),
    "dead by reject": lambda ch: dead_letters(ch, {}, lambda queue: ch.basic_reject(1 if got(ch, queue) else 0, False)),
    "dead by time": lambda ch: dead_letters(ch, {"x-message-ttl": 50}),
    "dead by length": lambda ch: dead_letters(ch, {"x-max-length": 0}),
    "full queue": lambda ch: fill(ch),
    "ttl 0": lambda ch: ask_after(ch.queue_declare("t", exclusive=True, arguments={"x-message-ttl": 0}), ch),
}  # fmt: skip


def ask_after(_: object, channel: BlockingChannel) -> None:
    """Ask something that is answered, so that the error of an unanswered method is seen."""
    channel.queue_declare("", exclusive=True)


def got(channel: BlockingChannel, queue: str = "e") -> bytes:
    """The next message of the queue, once it is there."""
    if queue == "e":
        channel.basic_publish("", queue, b"body")
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        method, _, body = channel.basic_get(queue)
        if method is not None:
            return bytes(body)
    raise AssertionError(f"nothing came to {queue}")


def dead_letters(channel: BlockingChannel, arguments: dict[str, Any], kill: Callable[[str], Any] | None = None) -> Any:
    """The properties of one dead letter, without its time."""
    channel.queue_delete("dying")
    channel.queue_declare("dead", exclusive=True)
    channel.queue_bind("dead", "amq.fanout")
    channel.queue_declare("dying", exclusive=True, arguments={"x-dead-letter-exchange": "amq.fanout", **arguments})
    properties = pika.BasicProperties(headers={"h": [1]}, expiration="100000", correlation_id="c")
    channel.basic_publish("", "dying", b"body", properties)
    if kill is not None:
        kill("dying")
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        method, found, body = channel.basic_get("dead", auto_ack=True)
        if method is not None:
            del found.headers["x-death"][0]["time"]
            return found.headers, found.expiration, found.correlation_id, method.exchange, method.routing_key, body
    raise AssertionError("no dead letter came")


def fill(channel: BlockingChannel) -> str:
    """How a publish to a queue that refuses ends."""
    channel.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", "full", b"")
    try:
        channel.basic_publish("", "full", b"")
    except AMQPError as error:
        return type(error).__name__
    return "taken"


def as_before_4(found: dict[str, Any]) -> dict[str, Any]:
    """RabbitMQ 4's outcomes, made into those that RabbitMQ 3 gives."""
    for name, outcome in found.items():
        if name.startswith("dead by"):
            for header in SINCE_4:
                del outcome[0][header]
    return {**found, **BEFORE_4}


def major_version(port: int, vhost: str) -> int:
    """The major version of the RabbitMQ at that port."""
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, vhost)) as connection:
        version: str = connection._impl.server_properties["version"]
    return int(version.split(".")[0])


def outcomes(port: int, vhost: str) -> dict[str, Any]:
    """The outcome of each case: its result, or whose close with which code, and its text where that should agree."""

    def connect() -> pika.BlockingConnection:
        return pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", port, vhost, heartbeat=0, socket_timeout=DEADLINE)
        )

    def prepare(channel: BlockingChannel) -> None:
        channel.queue_declare("d", durable=True)
        channel.queue_declare("e", arguments={"x-expires": 3_000_000})
        channel.exchange_declare("x", "topic")
        channel.exchange_declare("i", "fanout", internal=True)

    found: dict[str, Any] = {}
    connection = connect()
    prepare(connection.channel())
    for name, do in CASES.items():
        if connection.is_closed:
            connection = connect()
        channel = connection.channel()
        try:
            result = do(channel)
            found[name] = result if name in ("full queue",) or name.startswith("dead by") else "done"
        except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
            text = error.reply_text.replace(f"vhost '{vhost}'", "vhost V") if SAME_TEXT.search(error.reply_text) else ""
            found[name] = (type(error).__name__, error.reply_code, text)
        if channel.is_open:
            channel.close()
    if connection.is_open:
        connection.close()
    return found


class SameAsRabbitMQTests(TestCase):
    """The embedded broker is compared with the real one."""

    skip = rabbitmq.skip
    timeout = 120

    async def test_same(self) -> None:
        """Each case ends the same way on both."""
        broker = Broker()
        listening = await broker.listen("127.0.0.1", 0)
        self.addCleanup(broker.close)
        threads = ThreadPool(1, 2)
        threads.start()
        self.addCleanup(threads.stop)
        node = rabbitmq.node()
        vhost = node.new_vhost()
        port = listening.getHost().port
        ours = await deferToThreadPool(reactor, threads, outcomes, port, "/")
        theirs = await deferToThreadPool(reactor, threads, outcomes, node.port, vhost)
        if await deferToThreadPool(reactor, threads, major_version, node.port, vhost) < 4:
            ours = as_before_4(ours)
        different = {name: (ours[name], theirs[name]) for name in CASES if ours[name] != theirs[name]}
        self.assertEqual(different, {})
        self.assertEqual(len(ours), len(CASES))
