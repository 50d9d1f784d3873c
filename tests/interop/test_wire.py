"""The same message from both sides, byte for byte: exchange, routing key, properties with their types, and body.

Ours add a message id to every message, and ``expiration`` and two headers with a deadline to a request that has a
timeout; nothing else differs, and what is drawn anew each time is made equal first. One thing is left out here: a whole
number of more than 32 bits in a header is ``L`` from nameko, which py-amqp alone writes, and ``l`` from ours, as
RabbitMQ has it; both read both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from pickle import dumps
from struct import pack, unpack
from typing import Any

from tests import rabbitmq
from tests.interop.fixtures import InteropCase
from tests.interop.fleet import FAILURES, RESULTS, SIDES
from tests.interop.nameko_env import NAMEKO_3
from tests.services import Recorded
from txservices.amqp.entities import Message, Queue
from txservices.deadlines import DEADLINE, TIME_LEFT
from txservices.events import get_event_exchange
from txservices.replyqueue import rpc_exchange
from txservices.rpc import rpc
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing.waiting import Heard
from txservices.wire import frames
from txservices.wire.codec import encode_properties

CONTEXT = {
    "language": "en",
    "user_id": 7,
    "negative": -5,
    "flag": True,
    "fraction": 0.25,
    "nested": {"a": 1, "b": ["x", False, {"c": 0.5}]},
    "list": ["x", 1, 1 - 2**31, 1.5],
    "ünï": "cödé",
    "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    "price": Decimal("1.25"),
    "nameko.nested": "prefix",
    "x-foreign": "kept",
}
UUID = re.compile(rb"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
NAMES = re.compile(rb"(caller|teller|answers)_[nt]")
# Python's own words, about the function that looks whether arguments fit.
CALL_NAMED = re.compile(rb" \(call of [\w.]+\)")  # at the end of what our errors of calls say
CHECKED_BY = re.compile(rb"(inspect\.getcallargs|txservices\.utils\.signatures\.\w+)(?=\(\) argument after)")

# Arguments of errors that go out otherwise, as the table in docs/nameko.md says: it may have no end.
DIFFERENT = {"iterator"}

TOPOLOGY = {
    "list_exchanges": "name type durable auto_delete internal arguments",
    "list_queues": "name durable auto_delete exclusive arguments",
    "list_bindings": "destination_name source_name destination_kind routing_key arguments",
}
# Whose an exchange or queue is: the first name in a line of the above.
OWNER = re.compile(r"^(?:(?:rpc-|rpc\.reply-|evt-[^\t]*--)?(?!standalone)\w+_|readings-)([nt])\b")


def owner(line: str) -> str | None:
    found = OWNER.match(line)
    return found and found.group(1)


def stripped(line: str) -> str:
    """A line without its owner's side; events keep their source's."""
    mine = re.compile(rf"((?:--|rpc-|reply-|^|\t)\w+_|readings-|\t){owner(line)}(?=[-.\t])")
    if line.startswith("evt-"):
        mine = re.compile(r"(--\w+_)[nt]\b")
    return re.sub(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4,12}){4}", "an id", mine.sub(r"\1", line))


class Raw(dict[str, Any]):
    """Properties that have kept their bytes."""

    raw: bytes


def wire(message: Message) -> tuple[Any, ...]:
    """A message as it was on the wire, all but what is drawn anew each time, who it is from, and deadlines.

    Deadlines of calls are ours alone. nameko's services pass on what they get, with events, too.
    """
    properties = message.properties
    assert isinstance(properties, Raw)
    raw, body = without_deadline(properties), bytes(message.body)
    if properties.pop("message_id", None) is not None:  # ours: what is left of it once that is taken out
        raw = encode_properties(properties)
    names = [UUID.sub(b"an id", part) for part in (message.exchange.encode(), message.routing_key.encode(), raw, body)]
    return tuple(CALL_NAMED.sub(b"", CHECKED_BY.sub(rb"", NAMES.sub(rb"\1", name))) for name in names)


def without_deadline(properties: Raw) -> bytes:
    """The bytes of properties without the two headers of a deadline, which are taken out of the properties, too."""
    headers = properties.get("headers") or {}
    raw, cut = properties.raw, 0
    for name in (DEADLINE, TIME_LEFT):
        if headers.pop(name, None) is not None:
            entry = bytes([len(name)]) + name.encode() + b"d"  # and eight bytes of the number
            at = raw.index(entry)
            raw = raw[:at] + raw[at + len(entry) + 8 :]
            cut += len(entry) + 8
    if cut:  # the headers' length stands after the flags and two short texts
        at = 2 + sum(1 + len(properties[name]) for name in ("content_type", "content_encoding"))
        (length,) = unpack(">I", raw[at : at + 4])
        raw = raw[:at] + pack(">I", length - cut) + raw[at + 4 :]
    return raw


class Wire(InteropCase):
    """Each message is had from nameko's service and from ours."""

    async def setUp(self) -> None:
        super().setUp()
        decode = frames.decode_properties

        def keep(header: bytes, offset: int = 0) -> Raw:
            properties = Raw(decode(header, offset))
            properties.raw = bytes(header[offset:])
            return properties

        self.patch(frames, "decode_properties", keep)
        self.bare = self.connections()
        self.rpc_exchange = rpc_exchange(self.config)

    async def same(self, tapped: Heard, act: Callable[[str], Any], expiration: str | None = None) -> Message:
        """Have each side send one message. They are the same, except for the expiration of ours. Gives nameko's.

        Ours is what its caller still waits, of the 20 s that it had.
        """
        sent: list[Message] = []
        for side in SIDES:
            await act(side)
            sent.append((await tapped.wait(len(sent) + 1))[-1])
        tapped.things.clear()
        theirs, ours = sent
        self.assertNotIn("message_id", theirs.properties)
        self.assertEqual(len(ours.properties["message_id"]), 36)
        if expiration is not None:
            self.assertTrue(0.5 * int(expiration) < int(ours.properties.pop("expiration")) <= int(expiration))
            if theirs.properties.get("expiration") is not None:
                ours.properties["expiration"] = expiration
        for part in zip(wire(theirs), wire(ours), strict=True):
            self.assertEqual(*part)
        return theirs

    async def sink(self) -> Heard:
        """Requests to a service that answers what it is asked."""

        class Sink:
            name = "sink"

            @rpc
            def take(self, *args: Any, **kwargs: Any) -> None:
                pass

        await self.start(Sink)
        await self.start_ours("Caller")
        return await self.tap(self.rpc_exchange.name, "sink.*")

    async def test_request(self) -> None:
        """A call of a service by a service."""
        tapped = await self.sink()
        cluster = await self.cluster()
        request = await self.same(
            tapped,
            lambda side: cluster[f"caller_{side}"].call("sink", "take", [1, "ü", None, [1.5]], {"k": {"a": True}}),
            "20000",
        )
        self.assertEqual(bytes(request.body), b'{"args": [1, "\\u00fc", null, [1.5]], "kwargs": {"k": {"a": true}}}')
        self.assertEqual(request.properties["content_type"], "application/json")

    async def test_request_with_context(self) -> None:
        """Context of all types that AMQP has comes in, and goes out again."""
        tapped = await self.sink()
        cluster = await self.cluster(context_data=CONTEXT)
        request = await self.same(tapped, lambda side: cluster[f"caller_{side}"].call("sink", "take"), "20000")
        headers = request.properties["headers"]
        self.assertEqual(len(headers.pop("nameko.call_id_stack")), 2)
        self.assertEqual(headers, {f"nameko.{key}": value for key, value in CONTEXT.items()})

    async def test_request_with_options(self) -> None:
        """Priority, expiration, delivery mode and compression mean the same on both sides."""
        tapped = await self.sink()
        cluster = await self.cluster()
        request = await self.same(
            tapped, lambda side: cluster[f"caller_{side}"].call("sink_options", "take", ["x"] * 9), "20000"
        )
        self.assertEqual(request.properties["expiration"], "20000")
        self.assertEqual(request.properties["headers"]["compression"], "application/x-gzip")

    async def test_request_in_pickle(self) -> None:
        """Another serializer, by its names and in its bytes."""
        tapped = await self.sink()
        cluster = await self.cluster()
        request = await self.same(tapped, lambda side: cluster[f"caller_{side}"].call("sink_pickle", "take"), "20000")
        self.assertEqual(request.properties["content_type"], "application/x-python-serialize")

    async def test_request_of_a_program(self) -> None:
        """A standalone proxy's call, context and all."""
        tapped = await self.sink()
        theirs, ours = await self.from_programs(tapped)
        self.assertEqual(ours.properties.pop("expiration"), "20000")
        self.assertEqual(wire(theirs), wire(ours))

    async def from_programs(self, tapped: Heard) -> list[Message]:
        """A request from a program of nameko's, and one from ours."""
        cluster = await self.cluster()
        await cluster.standalone_n.call("sink", "take", [1], {"language": "en"})  # it makes three calls
        async with ClusterRpcProxy(self.config, {"language": "en"}) as proxy:
            await proxy.sink.take(1)
        return (await tapped.wait(4))[2:]

    async def test_replies(self) -> None:
        """Results, errors of all kinds, and the answers to what is no request, are the same down to their bytes."""
        await self.start_ours("Answers", "Caller")
        replies = Recorded()
        queue = Queue(f"replies-{self.id()}", self.rpc_exchange, "the-replies", auto_delete=True)
        await self.bare.consume(queue, replies, 100).ready
        json, pickle = "application/json", "application/x-python-serialize"
        requests: list[tuple[str, bytes, str]] = [
            ("relay", b'{"args": ["nobody", "x"], "kwargs": {}}', json),
            ("relay", b'{"args": ["answers_n", "stranger"], "kwargs": {}}', json),
            ("echo", b'{"args": [1, "x"], "kwargs": {"k": null}}', json),
            ("echo", '{"args": ["ü"], "kwargs": {}, "more": 1}'.encode(), json),
            ("echo", b'{"kwargs": {}, "args": "ab"}', json),
            ("echo", b'{"args": {"a": 1}, "kwargs": {}}', json),
            ("echo", b'{"args": null, "kwargs": {}}', json),
            ("echo", b'{"args": 1, "kwargs": {}}', json),
            ("echo", b'{"args": [], "kwargs": null}', json),
            ("echo", b'{"args": [], "kwargs": [1]}', json),
            ("echo", b'{"args": [], "kwargs": {"self": 1}}', json),
            ("two", b'{"args": [], "kwargs": {}}', json),
            ("echo", b'{"args": []}', json),
            ("echo", b'{"kwargs": {}}', json),
            ("echo", b"{}", json),
            ("echo", b"[]", json),
            ("echo", b"null", json),
            ("echo", b'"text"', json),
            ("echo", b"7", json),
            ("nothing", b'{"args": [], "kwargs": {}}', json),
            ("", b'{"args": [], "kwargs": {}}', json),
            ("nothing", b"[]", json),
            ("echo", dumps({"args": [1], "kwargs": {"k": (1, 2)}}), pickle),
            ("two", dumps({"args": [], "kwargs": {}}), pickle),
            ("fail", dumps({"args": ["values"], "kwargs": {}}), pickle),
            *(
                ("fail", b'{"args": ["%s"], "kwargs": {}}' % kind.encode(), json)
                for kind in FAILURES
                if kind not in DIFFERENT
            ),
            *(("give", b'{"args": ["%s"], "kwargs": {}}' % kind.encode(), json) for kind in RESULTS),
        ]
        for method, body, content_type in requests:
            for correlation in ({"correlation_id": "an-id"}, {}):
                properties = {"content_type": content_type, "reply_to": "the-replies", "headers": {}, **correlation}
                with self.subTest(method=method, body=body):
                    await self.same(
                        replies,
                        lambda side, m=method, b=body, p=properties: self.bare.publisher.publish(
                            self.rpc_exchange.name, f"{'caller' if m == 'relay' else 'answers'}_{side}.{m}", b, dict(p)
                        ),
                    )

    async def test_topology(self) -> None:
        """Each side's exchanges, queues and bindings have the same properties; so have the queues of replies."""
        await self.witness()  # of the events that others of these tests have left in the queues
        await self.start_ours("Answers", "Caller", "Teller", "Hops", "Listener", "Reader")
        vhost = self.config["AMQP_URI"].rpartition("/")[2]
        for command, columns in TOPOLOGY.items():
            lines = (await rabbitmq.node().ctl(command, "-p", vhost, *columns.split())).splitlines()
            listed = {side: {stripped(line) for line in lines if owner(line) == side} for side in SIDES}
            self.assertEqual(listed["n"], listed["t"], command)
            self.assertGreater(len(listed["n"]), 1, lines)

    async def test_events(self) -> None:
        """A service's events, with and without options, and those with JSON's special types."""
        await self.start_ours("Teller")
        tapped = Recorded()
        for side in SIDES:
            exchange = get_event_exchange(f"teller_{side}", self.config)
            queue = Queue(f"events-{side}-{self.id()}", exchange, "#", auto_delete=True)
            await self.bare.consume(queue, tapped, 100).ready
        cluster = await self.cluster(context_data=CONTEXT)
        for data in ({"a": [1, "ü"]}, "text", None, [1], 1.0):
            await self.same(tapped, lambda side, d=data: cluster[f"teller_{side}"].tell("tapped", d))
        event = await self.same(tapped, lambda side: cluster[f"teller_{side}"].tell_loudly("tapped", "x"))
        self.assertEqual((event.properties["priority"], event.properties["expiration"]), (2, "20000"))
        event = await self.same(tapped, lambda side: cluster[f"teller_{side}"].tell_special("tapped"))
        self.assertIn(b'{"__type__": "decimal", "__value__": "1.10"}', bytes(event.body))

    async def test_events_of_programs(self) -> None:
        """A dispatcher outside services sends no headers, in neither dialect."""
        tapped = await self.tap("programs.events")
        cluster = await self.cluster()
        async with event_dispatcher(self.config) as dispatch:
            acts: dict[str, Any] = {"n": cluster.standalone_n.dispatch, "t": dispatch}
            event = await self.same(tapped, lambda side: acts[side]("programs", "told", {"a": 1}))
        self.assertEqual(event.properties["headers"], {})

    async def test_publishes(self) -> None:
        """``Publisher``: headers merged in the same order, options under the same names, raw bodies as they are."""
        await self.start_ours("Teller")
        tapped = await self.tap("readings", "tapped")
        cluster = await self.cluster(context_data={"language": "en"})
        for value, options in (
            ({"a": 1}, {}),
            ("ü", {"headers": {"both": "call", "call": 2}}),
            ([1], {"priority": 4, "expiration": 1.5, "delivery_mode": 1, "correlation_id": "x", "reply_to": "y"}),
            ("x", {"type": "t", "app_id": "a", "user_id": "guest", "timestamp": 1700000000}),
            ("x" * 50, {"compression": "bzip2"}),
            ({"a": None}, {"serializer": "pickle", "mandatory": True, "use_confirms": True}),
            ("text as it is, ü", {"content_type": "text/plain"}),
            ("{}", {"content_type": "application/json", "content_encoding": "utf-8"}),
            ("ü", {"content_type": "text/plain", "content_encoding": "latin-1"}),
        ):
            with self.subTest(options=options):
                await self.same(
                    tapped,
                    lambda side, v=value, o=options: cluster[f"teller_{side}"].publish(
                        v, {"routing_key": "tapped", **o}
                    ),
                )


class WireWithNameko3(Wire):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3

    async def test_request_of_a_program(self) -> None:
        """3.0 has another name for its standalone proxies, and a call id for each call; the rest is the same."""
        tapped = await self.sink()
        theirs, ours = await self.from_programs(tapped)
        (stack,), (our_stack,) = [each.properties["headers"].pop("nameko.call_id_stack") for each in (theirs, ours)]
        self.assertEqual(UUID.sub(b"an id", stack.encode()), b"standalone_rpc_client.an id.an id")
        self.assertEqual(UUID.sub(b"an id", our_stack.encode()), b"standalone_rpc_proxy.call.an id")
        drawn = ("correlation_id", "reply_to", "message_id", "expiration")
        for each in (theirs, ours):
            for name in (DEADLINE, TIME_LEFT):
                each.properties["headers"].pop(name, None)
        known = [{key: value for key, value in each.properties.items() if key not in drawn} for each in (theirs, ours)]
        self.assertEqual(*known)
        self.assertEqual(bytes(theirs.body), bytes(ours.body))
