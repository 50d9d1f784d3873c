"""Conversations about what a message may say: how long it lives, further keys, modes, names that are no text."""

from __future__ import annotations

from typing import Any

from tests.broker.conversing import Case, Connect, ConversationsCase, told
from tests.broker.wire import CAPABILITIES, Heard, Wire
from tests.peer import method
from txservices.wire import codec, frames
from txservices.wire.spec import PROTOCOL_HEADER
from txservices.wire.tables import encode_longstr, encode_shortstr

TTLS: tuple[Any, ...] = (0, 1, -1, 5_184_000_000, 315_360_000_000, 315_360_000_001, 1 << 62, 1.5, True, "5", [1])
EXPIRATIONS = (
    *("0", "5", "05", "+5", "-0", "5184000000", "315360000000", "0315360000000"),
    *("-1", "", "+", " 5", "5 ", "5x", "0x10", "1_000", "1.5", "1e3", "\u0663", "315360000001", "9" * 30),
)
BAD = b"caf\xe9"  # no UTF-8
NAMED: tuple[tuple[str, dict[str, Any]], ...] = (  # methods with a name that is no UTF-8
    ("queue.declare", {"queue": BAD}),
    ("queue.delete", {"queue": BAD}),
    ("queue.purge", {"queue": BAD}),
    ("queue.bind", {"queue": BAD, "exchange": "amq.topic"}),
    ("queue.bind", {"queue": "u", "exchange": "amq.topic", "routing_key": BAD}),
    ("queue.unbind", {"queue": "u", "exchange": "amq.topic", "routing_key": BAD}),
    ("exchange.declare", {"exchange": BAD, "type": "fanout"}),
    ("exchange.declare", {"exchange": "e", "type": BAD}),
    ("exchange.delete", {"exchange": BAD}),
    ("exchange.bind", {"destination": "amq.fanout", "source": "amq.topic", "routing_key": BAD}),
    ("exchange.unbind", {"destination": "amq.fanout", "source": "amq.topic", "routing_key": BAD}),
    ("basic.get", {"queue": BAD}),
    ("basic.consume", {"queue": BAD}),
    ("basic.consume", {"queue": "u", "consumer_tag": BAD}),
    ("basic.cancel", {"consumer_tag": BAD}),
)
# Properties as bytes, flags and values, with a text that is no UTF-8.
PROPERTIES = {
    "content type": b"\x80\0" + encode_shortstr(BAD),
    "reply-to": b"\x02\0" + encode_shortstr(BAD),
    "expiration": b"\x01\0" + encode_shortstr(BAD),
    "header": b"\x20\0" + encode_longstr(encode_shortstr(BAD) + b"t\1"),
}


def shown(heard: list[Heard]) -> list[Any]:
    """Messages as they were heard, with their keys and headers."""
    return [
        (name, args.get("reply_code"), args.get("routing_key"), args.get("properties", {}).get("headers"), body)
        for _, name, args, body in heard
    ]


def publishing(key: Any = "none", exchange: Any = "", **properties: Any) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect().publish(key, b"body", exchange, mandatory=True, **properties)
        return shown(wire.method(1, "basic.qos").up_to("basic.qos-ok"))

    return talk


def declaring(argument: str, value: Any) -> Case:
    return lambda connect: told(
        connect().method(1, "queue.declare", exclusive=True, arguments={argument: value}).up_to("queue.declare-ok")
    )


def lives_on(connect: Connect) -> Any:
    """Sixty days are no reason to be dropped at once."""
    wire = connect()
    wire.call(1, "queue.declare", queue="q", exclusive=True, arguments={"x-message-ttl": 5_184_000_000})
    wire.call(1, "confirm.select")
    wire.publish("q", b"1", expiration="5184000000").publish("q", b"2", expiration="0").wait("basic.ack")
    return shown([wire.call(1, "basic.get", queue="q", no_ack=True) for _ in range(2)])


def in_no_time(connect: Connect) -> Any:
    """A message that may wait for no time is delivered to a consumer that waits for it, by either limit."""
    wire = connect()
    for queue, ttl in (("a", {}), ("b", {"x-message-ttl": 0})):
        wire.call(1, "queue.declare", queue=queue, exclusive=True, arguments=ttl)
        wire.call(1, "basic.consume", queue=queue)
    found = []
    for _ in range(10):
        found += shown([wire.publish("a", b"a", expiration="0").wait("basic.deliver")])
        found += shown([wire.publish("b", b"b").wait("basic.deliver")])
    return found


def copying(headers: dict[str, Any], type: str = "", key: str = "none", *bound: str) -> Case:
    """A message with CC or BCC, and the queues a, b and c: bound with those keys, or known by their names."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        if type:
            wire.call(1, "exchange.declare", exchange="x", type=type, auto_delete=True)
        for queue, with_key in zip("abc", bound or "abc", strict=False):
            wire.call(1, "queue.declare", queue=queue, exclusive=True)
            if type:
                wire.call(1, "queue.bind", queue=queue, exchange="x", routing_key=with_key)
        wire.call(1, "confirm.select")
        wire.publish(key, b"body", "x" if type else "", mandatory=True, headers=headers)
        found = shown(wire.up_to("basic.ack"))
        if found[-1][0] == "basic.ack":
            for queue in "abc"[: len(bound) or 3]:
                found += shown(drained(wire, queue))
        return found

    return talk


def drained(wire: Wire, queue: str) -> list[Heard]:
    """Everything in the queue, and the answer that it is empty."""
    found = [wire.call(1, "basic.get", queue=queue, no_ack=True)]
    while found[-1][1] == "basic.get-ok":
        found.append(wire.call(1, "basic.get", queue=queue, no_ack=True))
    return found


def dying(key: str, headers: dict[str, Any], dead_key: str | None = None) -> Case:
    """A message to queue d, which is rejected there, and the keys by which its dead letter goes."""

    def talk(connect: Connect) -> Any:
        wire = connect()
        wire.call(1, "exchange.declare", exchange="dead", type="direct", auto_delete=True)
        for queue in "dabc":
            arguments = {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": dead_key}
            wire.call(
                1,
                "queue.declare",
                queue=queue,
                exclusive=True,
                arguments={name: value for name, value in arguments.items() if value} if queue == "d" else {},
            )
        for queue, with_key in zip("abc", "dxy", strict=True):
            wire.call(1, "queue.bind", queue=queue, exchange="dead", routing_key=with_key)
            wire.call(1, "basic.consume", queue=queue, no_ack=True, consumer_tag=queue)
        wire.publish(key, b"body", headers=headers)
        while wire.call(1, "basic.get", queue="d")[1] == "basic.get-empty":
            pass
        wire.method(1, "basic.reject", delivery_tag=1)
        return sorted(letter(args) for _, name, args, _ in wire.rest() if name == "basic.deliver")

    return talk


def letter(args: dict[str, Any]) -> tuple[Any, ...]:
    headers = args["properties"]["headers"]
    keys = headers["x-death"][0]["routing-keys"]
    return args["consumer_tag"], args["routing_key"], keys, "CC" in headers, "BCC" in headers


def naming(name: str, arguments: dict[str, Any]) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect()
        wire.call(1, "queue.declare", queue="u", exclusive=True)
        return told([wire.call(1, name, **arguments)])

    return talk


def routing(connect: Connect) -> Any:
    """A key that is no UTF-8 is matched and delivered as it is."""
    wire = connect()
    wire.call(1, "queue.declare", queue="u", exclusive=True)
    wire.call(1, "queue.bind", queue="u", exchange="amq.topic", routing_key="a.*.#")
    wire.call(1, "confirm.select")
    cc = encode_shortstr("CC") + b"A" + encode_longstr(b"S" + encode_longstr(b"a.\xff"))
    wire.publish(b"a.\xff.\xfe", b"1", "amq.topic").publish(b"b.\xff", b"2", "amq.topic")
    wire.say(raw(b"\x20\0" + encode_longstr(cc), exchange="amq.topic"))
    while wire.wait("basic.ack")[2]["delivery_tag"] < 3:
        pass
    return shown(drained(wire, "u"))


def raw(properties: bytes, **arguments: Any) -> bytes:
    """A publish with those bytes for properties."""
    payload = codec.encode_method("basic.publish", **{"routing_key": "none", "mandatory": True, **arguments})
    return frames.content_frames(1, payload, properties, b"body")


def saying(properties: bytes) -> Case:
    def talk(connect: Connect) -> Any:
        wire = connect().say(raw(properties)).method(1, "basic.qos")
        wire.properties = lambda found: {}  # they can't be read
        return [(name, args.get("reply_code")) for _, name, args, _ in wire.up_to("basic.qos-ok")]

    return talk


def logging_in(size: int) -> Case:
    """Whether a client comes in whose start-ok is a frame of that many bytes."""

    def talk(connect: Connect) -> Any:
        connected = connect()
        wire = Wire(connected.socket.getpeername()[1])
        arguments = {"mechanism": "PLAIN", "response": b"\0guest\0guest", "locale": "en_US"}
        properties = {"capabilities": CAPABILITIES, "x": ""}
        short = len(method(0, "connection.start-ok", client_properties=properties, **arguments))
        properties["x"] = "x" * (size - short)
        wire.say(PROTOCOL_HEADER).wait("connection.start")
        wire.method(0, "connection.start-ok", client_properties=properties, **arguments)
        names = [name for _, name, _, _ in wire.rest()]
        wire.close()
        return "connection.tune" in names

    return talk


def asking_without_reading(connect: Connect) -> Any:
    """39 kB of requests in one piece, answered with 50 MB: others are served meanwhile, and no answer is missing."""
    wire, other = connect(), connect()
    wire.call(1, "queue.declare", queue="q", exclusive=True)
    wire.publish("q", b"x" * 50_000)
    wire.say(
        b"".join(
            method(1, "basic.get", queue="q") + method(1, "basic.reject", delivery_tag=tag, requeue=True)
            for tag in range(1, 1027)
        )
    )
    meanwhile = told([other.call(1, "basic.qos")])
    answers = [wire.wait("basic.get-ok")[1] for _ in range(1026)]
    return meanwhile, set(answers), told([wire.call(1, "basic.qos")])


def not_reading(connect: Connect) -> Any:
    """A client that asks and never reads, and then goes, does the others no harm."""
    wire, other = connect(), connect()
    wire.call(1, "queue.declare", queue="q", exclusive=True)
    wire.publish("q", b"x" * 50_000)
    for tag in range(1, 1027):
        wire.method(1, "basic.get", queue="q").method(1, "basic.reject", delivery_tag=tag, requeue=True)
    wire.close()
    return told([other.call(1, "queue.declare", queue="other", exclusive=True), other.call(1, "basic.qos")])


TIMES: dict[str, Case] = {
    **{f"expiration {value!r}": publishing(expiration=value) for value in EXPIRATIONS},
    **{f"{name} {value!r}": declaring(name, value) for name in ("x-message-ttl", "x-expires") for value in TTLS},
    "sixty days": lives_on,
    "in no time": in_no_time,
}
MODES: dict[str, Case] = {f"mode {mode}": publishing(delivery_mode=mode) for mode in (0, 1, 2, 3, 255)}
MODES_BEFORE_4 = {f"mode {mode}": [("channel.close", 406, None, None, b"")] for mode in (0, 3, 255)}
COPIES: dict[str, Case] = {
    "CC": copying({"CC": ["a", "b"]}),
    "CC to the same": copying({"CC": ["a", "a"]}, "", "a"),
    "BCC": copying({"BCC": ["a"], "other": 1}),
    "BCC alone": copying({"BCC": ["a"]}),
    "both": copying({"CC": ["a"], "BCC": ["b", "a"]}, "", "c"),
    "nowhere": copying({"CC": ["n"], "BCC": ["m"]}),
    "empty": copying({"CC": []}),
    "in small letters": copying({"cc": ["a"]}),
    "of any kind": copying({"CC": [5, "a", None, ["b"], True, {"c": 1}, 1.5]}),
    "long": copying({"CC": ["q" * 300, "a"]}),
    "topic": copying({"CC": ["p.q"]}, "topic", "x.y", "p.*", "x.*", "*.q"),
    "topic twice": copying({"CC": ["p.q", "p.r"]}, "topic", "p.s", "p.*"),
    "direct": copying({"CC": ["p"]}, "direct", "x", "p", "x", "n"),
    "fanout": copying({"CC": ["p"]}, "fanout", "x", "p", "n"),
    **{
        f"{name} {value!r}": copying({name: value})
        for name in ("CC", "BCC")
        for value in ("a", b"a", None, 5, 1.5, True, {"a": 1})
    },
    "dead": dying("d", {"CC": ["x"], "BCC": ["y"]}),
    "dead with others than keys": dying("d", {"CC": [5, "x", None, ["y"]]}),
    "dead with a key": dying("d", {"CC": ["x"], "BCC": ["y"]}, "x"),
    "dead by its CC": dying("x", {"CC": ["d"], "BCC": ["y"]}),
    "dead by its BCC": dying("n", {"CC": ["x"], "BCC": ["d"]}),
}
COPIES_BEFORE_4 = {"dead with a key": [("b", "x", ["d", "x"], False, False)]}
NAMES: dict[str, Case] = {
    **{f"{name} {arguments}": naming(name, arguments) for name, arguments in NAMED},
    "key": publishing(BAD),
    "exchange": publishing("none", BAD),
    "routed": routing,
    **{f"properties: {name}": saying(properties) for name, properties in PROPERTIES.items()},
}
OTHERS: dict[str, Case] = {
    **{f"login in {size} bytes": logging_in(size) for size in (400, 4096, 20_000)},
    "asking without reading": asking_without_reading,
    "not reading": not_reading,
}


class PublishConversationsTests(ConversationsCase):
    """A message fares the same on both."""

    async def test_times(self) -> None:
        """Messages and queues live up to ten years, and anything but a number of milliseconds is refused."""
        await self.compare(TIMES)

    async def test_modes(self) -> None:
        """RabbitMQ 4 and the embedded broker take any delivery mode, RabbitMQ 3 only 1 and 2."""
        await self.compare(MODES, MODES_BEFORE_4)

    async def test_copies(self) -> None:
        """CC and BCC are further routing keys, also of dead letters, and nobody sees BCC."""
        await self.compare(COPIES, COPIES_BEFORE_4)

    async def test_names(self) -> None:
        """A routing key may be any bytes. A name that is no UTF-8 is refused where it would be made known."""
        await self.compare(NAMES)

    async def test_limits(self) -> None:
        """Large frames before the login, and answers that nobody reads, cost only their own client."""
        await self.compare(OTHERS)
