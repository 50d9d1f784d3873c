"""The same conversations, byte for byte, with RabbitMQ and with the embedded broker: what is heard is compared.

pika (test_against_rabbitmq.py) says only what a good client says. Here is the rest: closes that cross, keys that are no
text, numbers nobody agreed on, a memory alarm.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from tests.broker.conversing import Case, Connect, ConversationsCase, connections, told
from tests.broker.wire import CAPABILITIES, DEADLINE, Wire
from tests.peer import method
from tests.testing import managed
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_BODY, FRAME_HEADER, FRAME_METHOD, PROTOCOL_HEADER


def crossing(connect: Connect) -> Any:
    """A channel.close that crosses the broker's: the channel is closed once, the connection goes on."""
    wire = connect().method(1, "queue.declare", queue="none", passive=True)
    # RabbitMQ answers our close only if it has begun with its own: on a busy machine it may read ours before
    found = [wire.wait("channel.close")]
    wire.method(1, "channel.close").method(1, "channel.close-ok").method(1, "channel.open").method(1, "basic.qos")
    return told([*found, *wire.rest()])


def body_of(size: int) -> Case:
    """A body in one frame, at a frame_max of 4,096."""

    def talk(connect: Connect) -> Any:
        wire = connect(frame_max=4096)
        wire.say(frames.frame(FRAME_METHOD, 1, codec.encode_method("basic.publish", routing_key="none")))
        wire.say(frames.frame(FRAME_HEADER, 1, frames.HEADER.pack(60, 0, size) + b"\0\0"))
        wire.say(frames.frame(FRAME_BODY, 1, b"x" * size))
        return told([wire.call(1, "basic.qos")])

    return talk


def say(name: str, channel: int = 1, channel_max: int = 2047, **arguments: Any) -> Case:
    return lambda connect: told(connect(channel_max=channel_max).method(channel, name, **arguments).rest())


def too_many(connect: Connect) -> Any:
    wire = connect(channel_max=3)
    return told(wire.method(65_000, "channel.open").method(2, "channel.open").method(3, "channel.open").rest())


def close_while_publishing(connect: Connect) -> Any:
    """The answer to a close is seen by a client that has much more to say."""
    wire = connect().method(0, "connection.close")
    try:
        for _ in range(100):
            wire.publish("none", b"x" * 100_000)
    except ConnectionError:
        pass
    return told([wire.wait("connection.close-ok")])


def wrong_while_publishing(mistake: bytes) -> Case:
    """The broker's close is seen by a client that has made a mistake, and has much more to say."""

    def talk(connect: Connect) -> Any:
        wire = connect().say(mistake)
        try:
            for _ in range(100):
                wire.publish("none", b"x" * 100_000)
        except ConnectionError:
            pass
        return told([wire.wait("connection.close")])

    return talk


def refused(start_ok: dict[str, Any]) -> Case:
    """A client that may not come in: the code of a close, if it is told, and whether its connection is ended."""

    def talk(connect: Connect) -> Any:
        wire = Wire(connect().socket.getpeername()[1])
        wire.say(PROTOCOL_HEADER).wait("connection.start")
        wire.method(0, "connection.start-ok", locale="en_US", **start_ok)
        answer = wire.wait("connection.tune")
        if answer[1] == "connection.close":
            wire.method(0, "connection.close-ok")
        while wire.read(DEADLINE):
            pass
        wire.close()
        return answer[2].get("reply_code"), wire.end != ""

    return talk


def dies(properties: dict[str, Any], *keys: bytes) -> Case:
    """A dead letter: its keys, before and after, and its properties, without the time."""

    def talk(connect: Connect) -> Any:
        wire, found = connect(), []
        wire.call(1, "queue.declare", queue="dead", exclusive=True)
        wire.call(1, "queue.bind", queue="dead", exchange="amq.topic", routing_key="#")
        dying = {"x-dead-letter-exchange": "amq.topic", "x-message-ttl": 0}
        wire.call(1, "queue.declare", queue="dying", exclusive=True, arguments=dying)
        wire.call(1, "queue.bind", queue="dying", exchange="amq.fanout")
        wire.call(1, "basic.consume", queue="dead", no_ack=True)
        for key in keys:
            wire.publish(key, b"dead", "amq.fanout", **properties)
            _, name, args, body = wire.wait("basic.deliver")
            headers = args["properties"].pop("headers")
            (death,) = headers.pop("x-death")
            death.pop("time")
            kept = {each: value for each, value in headers.items() if not each.startswith("x-last-death")}  # since 3.13
            found.append((name, args["routing_key"], args["properties"], kept, death, body))
        return found

    return talk


UNDERSTANDS = {"capabilities": CAPABILITIES}  # that a login may be refused with a close
CASES: dict[str, Case] = {  # name -> the conversation
    "a close that crosses": crossing,
    "open while closing": lambda connect: told(
        connect().method(1, "queue.declare", queue="none", passive=True).method(1, "channel.open").rest()
    ),
    "close-ok unasked": say("channel.close-ok"),
    "high number": say("channel.open", channel=65_000),
    "number over channel_max": say("channel.open", channel=4, channel_max=3),
    "too many channels": too_many,
    "unbind a missing destination": say("exchange.unbind", destination="none", source="amq.topic", routing_key="k"),
    "unbind a missing source": say("exchange.unbind", destination="amq.topic", source="none", routing_key="k"),
    "unbind the default": say("exchange.unbind", destination="", source="amq.topic", routing_key="k"),
    "bind to the default": say("exchange.bind", destination="", source="amq.topic", routing_key="k"),
    "flow off": say("channel.flow", active=False),
    "flow on": say("channel.flow", active=True),
    **{f"a body of {size} bytes in a frame": body_of(size) for size in (4088, 4089, 4096, 4097)},
    "close while publishing": close_while_publishing,
    **{
        f"{what} while publishing": wrong_while_publishing(mistake)
        for what, mistake in (
            ("what is not implemented", method(1, "channel.flow", active=False)),
            ("a channel opened twice", method(1, "channel.open")),
            ("a channel that is not open", method(9, "basic.qos")),
            ("a method of the server", method(1, "queue.declare-ok")),
            ("a header without a method", frames.frame(FRAME_HEADER, 1, b"x" * 14)),
            ("a body without a method", frames.frame(FRAME_BODY, 1, b"x")),
            ("no type of frame", b"\x07\0\1\0\0\0\0\xce"),
            ("no end of a frame", b"\x01\0\1\0\0\0\0\xcd"),
            ("a frame over the limit", b"\x01\0\1\x7f\0\0\0"),
        )
    },
    **{
        f"refused: {what}": refused({"mechanism": mechanism, "response": response, "client_properties": properties})
        for what, mechanism, response, properties in (
            ("password", "PLAIN", b"\0guest\0wrong", UNDERSTANDS),
            ("user", "PLAIN", b"\0nobody\0guest", UNDERSTANDS),
            ("long name", "PLAIN", b"\0x\n" + b"y" * 1000 + b"\0guest", UNDERSTANDS),
            ("password, without a word", "PLAIN", b"\0guest\0wrong", {}),
            ("mechanism", "NONE", b"", {}),
        )
    },
    "keys of dead letters that are no text": dies({}, b"k", b"caf\xe9", b"\xff" * 255, b"\xed\xa0\x80", "é".encode()),
    "properties of a dead letter": dies(
        {
            "headers": {"f": 1.5, "b": b"\xff", "t": {"a": [None, True, 1 << 40]}, "d": Decimal("1.5")},
            "message_id": "m",
            "priority": 3,
            "timestamp": 1 << 40,
            "delivery_mode": 2,
            "expiration": "60000",
        },
        b"k",
    ),
}


class ConversationsTests(ConversationsCase):
    """The embedded broker talks as the real one."""

    lanes = 8

    async def test_same(self) -> None:
        """Each conversation is the same on both."""
        await self.compare(CASES)

    async def test_memory_alarm(self) -> None:
        """Only who publishes is stopped, at its first publish, which is taken, and goes on when the alarm is over."""
        node = managed.node()  # where an alarm holds up only a few tests

        def starve(alarmed: bool) -> None:
            node.set_memory(0.00001 if alarmed else 0.4)

        def fill(alarmed: bool) -> None:
            reactor.callFromThread(setattr, self.broker.watermark, "most", -1 if alarmed else 1 << 30)

        theirs, ours = await gatherResults(
            [self.in_thread(under_alarm, node.port, starve), self.in_thread(under_alarm, self.port, fill)]
        )
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
