"""Conversations about Direct Reply-to, with RabbitMQ and with the embedded broker."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.broker.conversing import Case, Connect, ConversationsCase
from tests.broker.wire import Heard, Wire

DIRECT = "amq.rabbitmq.reply-to"
TOKEN = re.compile(r"(amq\.rabbitmq\.reply-to\.)[\w./+=-]+")
VHOST = re.compile("vhost '[^']*'")
REPLIES = {"queue": DIRECT, "no_ack": True, "consumer_tag": "t"}  # how one consumes them


SHOWN = ("reply_code", "reply_text", "queue", "consumer_tag", "message_count", "consumer_count", "routing_key")


def shown(heard: list[Heard]) -> list[str]:
    """Everything heard, with one word for all names of replies, and for the virtual host."""
    return [
        VHOST.sub(
            "vhost V",
            TOKEN.sub(r"\1TOKEN", repr((name, *map(args.get, SHOWN), args.get("properties"), body[:50]))),
        )
        for _, name, args, body in heard
    ]


Method = tuple[str, dict[str, Any]]


def saying(*methods: Method) -> Case:
    """Methods one after the other, each with its answer."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        return shown([wire.call(1, name, **arguments) for name, arguments in methods])

    return talk


def consuming(**arguments: Any) -> Method:
    return "basic.consume", {**REPLIES, **arguments}


def publishing(*, queue: bool, channel: int = 0, cancelled: bool = False) -> Case:
    """A request that wants direct replies, while a channel consumes them, or no longer, or none does."""

    def talk(connect: Connect) -> Any:
        wire = connect(channels=2)
        if queue:
            wire.call(1, "queue.declare", queue="q", exclusive=True)
        if channel:
            wire.call(channel, "basic.consume", **REPLIES)
        if cancelled:
            wire.call(channel, "basic.cancel", consumer_tag="t")
        wire.publish("q" if queue else "none", b"request", reply_to=DIRECT, mandatory=True)
        return shown(wire.method(1, "basic.qos").up_to("basic.qos-ok"))

    return talk


Talk = Callable[[Wire, Wire, str, Connect], Any]


def between(talk: Talk) -> Case:
    """Two clients, one that has asked and one that knows the name for its replies, and their talk."""

    def conversation(connect: Connect) -> Any:
        caller, callee = connect(), connect()
        callee.call(1, "queue.declare", queue="q", exclusive=True)
        caller.call(1, "basic.consume", **REPLIES)
        return talk(caller, callee, asked(caller, connect), connect)

    return conversation


def asked(caller: Wire, connect: Connect) -> str:
    """The name for replies to the caller, as the receiver of its request reads it."""
    caller.publish("none", b"request", reply_to=DIRECT, mandatory=True)
    name: str = caller.wait("basic.return")[2]["properties"]["reply_to"]
    return name


def said(wire: Wire) -> list[Any]:
    """Everything that came up to now."""
    return shown(wire.method(1, "basic.qos").up_to("basic.qos-ok"))


def reply(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    callee.publish(name, b"1", correlation_id="c").publish(name, b"2", headers={"a": 1}, expiration="0", priority=3)
    callee.publish(name, b"x" * 300_000)
    return said(callee), [shown([caller.wait("basic.deliver")]) for _ in range(3)]


def mandatory(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """A mandatory reply is delivered, and returned as well."""
    callee.call(1, "confirm.select")
    callee.publish(name, b"1", mandatory=True)
    return shown(callee.up_to("basic.ack")), shown([caller.wait("basic.deliver")])


def declared(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    return shown([callee.call(1, "queue.declare", queue=name, passive=passive) for passive in (True, False)])


def not_a_queue(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """The name is no queue for anything else."""
    found = []
    for method, arguments in (
        ("basic.get", {}),
        ("basic.consume", {}),
        ("queue.purge", {}),
        ("queue.delete", {}),
        ("queue.bind", {"exchange": "amq.topic"}),
        ("queue.unbind", {"exchange": "amq.topic"}),
    ):
        found += shown([connect().call(1, method, queue=name, **arguments)])
    return found


def other_exchange(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    for exchange in ("amq.direct", "amq.topic"):
        callee.publish(name, b"lost", exchange, mandatory=True)
    return said(callee), said(caller)


def wrong_names(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    for wrong in (name + "x", DIRECT, f"{DIRECT}.", DIRECT + "x"):
        callee.publish(wrong, b"lost", mandatory=True)
    return [TOKEN.sub("", each) for each in said(callee)], said(caller)


def cancelled(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    caller.call(1, "basic.cancel", consumer_tag="t")
    callee.publish(name, b"late", mandatory=True)
    return said(callee), said(caller), shown([callee.call(1, "queue.declare", queue=name, passive=True)])


def consumed_again(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """A later consumer has another name."""
    caller.call(1, "basic.cancel", consumer_tag="t")
    caller.call(1, "basic.consume", **REPLIES)
    another = asked(caller, connect)
    callee.publish(name, b"late", mandatory=True).publish(another, b"new")
    return name == another, said(callee), shown([caller.wait("basic.deliver")])


def channel_closed(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    caller.call(1, "channel.close")
    callee.publish(name, b"late", mandatory=True)
    return said(callee), shown([callee.call(1, "queue.declare", queue=name, passive=True)])


def copies(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """A reply may go to a queue as well, by either header."""
    callee.call(1, "confirm.select")
    found = []
    for key, header, others in (
        ("q", "CC", [name]),
        (name, "CC", ["q"]),
        (name, "BCC", ["q", name]),
        ("n", "BCC", [name]),
    ):
        callee.publish(key, b"copy", headers={header: others}, mandatory=True)
        found.append(shown(callee.up_to("basic.ack")))
        found.append(shown([caller.wait("basic.deliver"), callee.call(1, "basic.get", queue="q", no_ack=True)]))
    return found


def replies_to_a_reply(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """A client that replies may want a direct reply itself, if it consumes them."""
    callee.call(1, "basic.consume", **{**REPLIES, "consumer_tag": "u"})
    callee.publish(name, b"1", reply_to=DIRECT)
    back = caller.wait("basic.deliver")
    caller.publish(back[2]["properties"]["reply_to"], b"2")
    other = connect().publish(name, b"3", reply_to=DIRECT)
    return shown([back, callee.wait("basic.deliver")]), said(other)


def no_acks(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """A prefetch does not hold replies up, and they can't be acked."""
    caller.call(1, "basic.qos", prefetch_count=1)
    for number in range(3):
        callee.publish(name, b"%d" % number)
    found = shown([caller.wait("basic.deliver") for _ in range(3)])
    caller.method(1, "basic.ack", delivery_tag=1)
    return found, said(caller)


def dead_letter(caller: Wire, callee: Wire, name: str, connect: Connect) -> Any:
    """A dead letter is no reply: it does not come, and nothing after it is lost."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name, "x-message-ttl": 0}
    callee.call(1, "queue.declare", queue="dying", exclusive=True, arguments=arguments)
    callee.publish("dying", b"dead")
    return [name for _, name, _, _ in caller.rest()]


CASES: dict[str, Case] = {
    "consume": saying(consuming()),
    "with acks": saying(consuming(no_ack=False)),
    "exclusively": saying(consuming(exclusive=True)),
    "twice": saying(consuming(), consuming(consumer_tag="u")),
    "twice with one tag": saying(consuming(), consuming()),
    "a tag in use": saying(("queue.declare", {"queue": "q", "exclusive": True}), consuming(queue="q"), consuming()),
    "again": saying(consuming(), ("basic.cancel", {"consumer_tag": "t"}), consuming(consumer_tag="u")),
    "a name of one's own": saying(consuming(queue=f"{DIRECT}.x")),
    **{
        f"declare {name}, passive={passive}": saying(("queue.declare", {"queue": name, "passive": passive, **more}))
        for passive in (True, False)
        for name, more in (
            (DIRECT, {}),
            (DIRECT, {"durable": True, "exclusive": True, "arguments": {"x-expires": 5}}),
            (f"{DIRECT}.x", {}),
            (f"{DIRECT}x", {}),
        )
    },
    **{
        f"{name} of it": saying((name, {"queue": DIRECT, **more}))
        for name, more in (
            ("basic.get", {}),
            ("queue.bind", {"exchange": "amq.topic"}),
            ("queue.unbind", {"exchange": "amq.topic"}),
            ("queue.purge", {}),
            ("queue.delete", {}),
        )
    },
    "ask without a consumer": publishing(queue=True),
    "ask nobody without a consumer": publishing(queue=False),
    "ask with the consumer of another channel": publishing(queue=True, channel=2),
    "ask after cancelling": publishing(queue=True, channel=1, cancelled=True),
    "ask nobody": publishing(queue=False, channel=1),
    **{
        talk.__name__: between(talk)
        for talk in (
            reply,
            mandatory,
            declared,
            not_a_queue,
            other_exchange,
            wrong_names,
            cancelled,
            consumed_again,
            channel_closed,
            copies,
            replies_to_a_reply,
            no_acks,
            dead_letter,
        )
    },
}
BEFORE_4 = {"dead_letter": ["basic.deliver"]}


class ReplyConversationsTests(ConversationsCase):
    """Replies that need no queue."""

    async def test_same(self) -> None:
        """Each conversation is the same on both."""
        await self.compare(CASES, BEFORE_4)
