"""Serializers: lines 61 and 62."""

from __future__ import annotations

import json
import pickle
from typing import Any

from tests.conformance.cases import QUEUE, Case
from tests.services import client_of
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ConfigurationError, EncodeError, MalformedRequest, RemoteError
from txservices.messaging import consume
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing.waiting import Heard

PICKLE = "application/x-python-serialize"


def upper(value: Any) -> str:
    return json.dumps(value).upper()


def lower(body: bytes) -> Any:
    return json.loads(body.decode().lower())


SHOUTING = {
    "serializer": "shouting",
    "SERIALIZERS": {
        "shouting": {
            "encoder": f"{__name__}.upper",
            "decoder": f"{__name__}.lower",
            "content_type": "application/x-shouting",
        }
    },
}


def hearing(heard: Heard) -> type:
    """A service that is called, told and sent messages."""

    class Hearing:
        name = "hearing"
        dispatch = EventDispatcher()

        @rpc
        def call(self, value):
            heard(value)
            return value

        @rpc
        def tell(self, value):
            return self.dispatch("type", value)

        @event_handler("hearing", "type")
        def hear(self, value):
            heard(value)

        @consume(QUEUE)
        def take(self, value):
            heard(value)

    return Hearing


class Formats(Case):
    """Line 61."""

    async def test_line_61_on_the_wire(self) -> None:
        """JSON, pickle and one's own: requests, replies and events are all in the configured format."""
        table: list[tuple[dict[str, Any], str, str, bytes]] = [
            ({}, "application/json", "utf-8", b'["v"]'),
            ({"serializer": "pickle"}, PICKLE, "binary", pickle.dumps(["v"])),
            (SHOUTING, "application/x-shouting", "utf-8", b'["V"]'),
        ]
        for config, content_type, encoding, event in table:
            self.config["AMQP_URI"] += "x"
            heard = Heard()
            await self.start(hearing(heard), **config)
            calls, events = await self.tap("nameko-rpc"), await self.tap("hearing.events")
            cluster = await self.process(**config).cluster()
            self.assertEqual(await cluster.hearing.call(["v"]), ["v"])
            await cluster.hearing.tell(["v"])
            self.assertEqual(await heard.wait(2), [["v"]] * 2)
            messages = [*await calls.wait(4), *await events.wait(1)]
            kinds = {(each.properties["content_type"], each.properties["content_encoding"]) for each in messages}
            self.assertEqual(kinds, {(content_type, encoding)})
            self.assertEqual(messages[-1].body, event)

    async def test_line_61_missing(self) -> None:
        """A serializer that isn't registered is refused at the start, in nameko's words, wherever it is named."""
        for config in ({"serializer": "nothing"}, {"ACCEPT": ["json", "nothing"]}):
            with self.assertRaises(ConfigurationError) as raised:
                await self.start(hearing(Heard()), **config)
            self.assertEqual(str(raised.exception), 'Please register a serializer for "nothing" format')
            with self.assertRaises(ConfigurationError):
                ClusterRpcProxy({**self.config, **config})

    async def test_line_61_accept(self) -> None:
        """Several formats are accepted, for calls, events, messages and replies; each reply is in its request's."""
        heard = Heard()
        both: dict[str, Any] = {"ACCEPT": ["json", "pickle"]}
        await self.start(hearing(heard), **both)
        replies = await self.tap("nameko-rpc", "#")
        for serializer in ("json", "pickle"):
            config = {**both, "serializer": serializer}
            cluster = await self.process(**config).cluster()
            await cluster.hearing.call("called")
            async with event_dispatcher({**self.config, **config}) as dispatch:
                await dispatch("hearing", "type", "told")
            body = b'"sent"' if serializer == "json" else pickle.dumps("sent")
            kind = "application/json" if serializer == "json" else PICKLE
            await self.publish("x", "key", body, content_type=kind)
        self.assertEqual(sorted(await heard.wait(6)), sorted(["called", "told", "sent"] * 2))
        kinds = [message.properties["content_type"] for message in await replies.wait(4)]
        self.assertEqual(kinds, ["application/json"] * 2 + [PICKLE] * 2)

    async def test_line_61_not_accepted(self) -> None:
        """A format that is not accepted is answered with MalformedRequest, or rejected with a line in the log.

        nameko acks and drops it, and a caller waits for ever.
        """
        heard = Heard()
        await self.start(hearing(heard))
        cluster = await self.process(serializer="pickle", ACCEPT=["pickle", "json"]).cluster()
        with self.assertRaises(MalformedRequest):
            await cluster.hearing.call(1)
        lines = self.lines()
        async with event_dispatcher({**self.config, "serializer": "pickle"}) as dispatch:
            await dispatch("hearing", "type", 1)
        await self.publish("x", "key", pickle.dumps(1), content_type=PICKLE)
        for line in await lines.wait(2):
            self.assertRegex(line, f"^hearing.(hear|take): .* rejected: content type '{PICKLE}' is not accepted here")
        self.assertEqual(heard.things, [])


class Arguments(Case):
    """Line 62."""

    async def test_line_62_proxy_stays_usable(self) -> None:
        """Arguments that can't be written raise EncodeError and leave nothing behind, in a worker too."""

        class Caller:
            name = "caller"
            hearing = RpcProxy("hearing")

            @rpc
            async def call(self):
                try:
                    await self.hearing.call(object())
                except EncodeError:
                    return await self.hearing.call("second")

        _, container = await self.start(hearing(Heard()), Caller)
        cluster = await self.cluster()
        with self.assertRaises(EncodeError):
            cluster.hearing.call(object())
        self.assertEqual([await cluster.hearing.call("first"), await cluster.caller.call()], ["first", "second"])
        self.assertEqual(client_of(cluster).pending, {})
        self.assertEqual(container.dependencies[0].reply_listener.client.pending, {})

    async def test_line_62_result_that_cannot_be_written(self) -> None:
        """A result that can't be written is the caller's error, and the service goes on."""

        class Service:
            name = "service"

            @rpc
            def method(self, good):
                return "good" if good else {1}

        await self.start(Service)
        service = (await self.cluster()).service
        with self.assertRaises(RemoteError) as raised:
            await service.method(False)
        self.assertEqual(str(raised.exception), "UnserializableValueError Unserializable value: `{1}`")
        self.assertEqual(await service.method(True), "good")
