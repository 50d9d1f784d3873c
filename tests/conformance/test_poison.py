"""Messages that can't be read or handled: no such message ends a service, or comes again for ever."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.cases import JSON, UNKNOWN, Case, Waiting, service
from tests.services import client_of
from txservices.exceptions import DecodeError
from txservices.testing.waiting import Heard
from txservices.utils.life import State

GOOD = {"args": [1], "kwargs": {}}
DEEP = b"[" * 100_000
# what a request is -> the type of the error that it is answered with, and words of its text
BAD_REQUESTS: list[tuple[Any, dict[str, Any], str, str]] = [
    (b"", {}, "MalformedRequest", "can't be read"),
    (b"{", {}, "MalformedRequest", "can't be read"),
    (b"\xff\xfe", {}, "MalformedRequest", "can't be read"),
    (DEEP, {}, "MalformedRequest", "can't be read"),
    ({"args": [UNKNOWN], "kwargs": {}}, {}, "MalformedRequest", "can't be read"),
    ({"args": [{"__type__": "datetime", "__value__": "x"}], "kwargs": {}}, {}, "MalformedRequest", "can't be read"),
    (GOOD, {"headers": {"compression": "application/x-gzip"}}, "MalformedRequest", "can't be read"),
    (GOOD, {"headers": {"compression": ["odd"]}}, "MalformedRequest", "can't be read"),
    (GOOD, {"content_type": None}, "MalformedRequest", "content type None is not accepted"),
    (GOOD, {"content_type": "application/data"}, "MalformedRequest", "not accepted"),
    (GOOD, {"content_type": "text/plain"}, "MalformedRequest", "not accepted"),
    (GOOD, {"content_type": "application/json; charset=utf-8"}, "MalformedRequest", "not accepted"),
    ({}, {}, "MalformedRequest", "missing `args` or `kwargs`"),
    ([1], {}, "TypeError", ""),
    (None, {}, "TypeError", ""),
    ("text", {}, "TypeError", ""),
    ({"args": None, "kwargs": {}}, {}, "IncorrectSignature", ""),
    ({"args": [1], "kwargs": [1]}, {}, "IncorrectSignature", ""),
    ({"args": [1], "kwargs": {"self": 1}}, {}, "IncorrectSignature", "multiple values for argument 'self'"),
]
# what a service that is called, told and sent messages can't read, and words of the line in its log
BAD_MESSAGES: list[tuple[bytes, dict[str, Any], str]] = [
    (b"", {}, "can't be read"),
    (b"{", {}, "can't be read"),
    (b"\xff", {}, "can't be read"),
    (DEEP, {}, "can't be read"),
    (json.dumps(UNKNOWN).encode(), {}, "can't be read"),
    (b"1", {"headers": {"compression": "application/x-gzip"}}, "can't be read"),
    (b"1", {"headers": {"compression": 7}}, "can't be read"),
    (b"1", {"content_type": "text/plain"}, "'text/plain' is not accepted"),
    (b"1", {"content_type": "application/x-python-serialize"}, "is not accepted"),
]
BAD_STACKS: list[Any] = ["text", 7, None, {"a": 1}, [], [7, None], b"\xff"]


class Poison(Case):
    """No message ends a service, or comes again for ever. nameko's container dies of some, and of each again."""

    async def begin(self) -> Heard:
        self.heard = Heard()
        (self.container,) = await self.start(service(self.heard))
        return self.heard

    async def well(self, heard: list[Any]) -> None:
        """The service runs, answers, has heard this and nothing else, and has left nothing in its queues."""
        self.assertEqual(await (await self.cluster()).service.call("well"), "well")
        self.assertTrue(self.container.running and self.container.life.state is not State.KILLED)
        self.assertEqual(self.heard.things, [*heard, "well"])
        await self.container.stop()
        for name in ("rpc-service", "evt-source-type--service.hear", "q"):
            self.assertEqual(self.left_in(name), 0, name)

    async def test_requests(self) -> None:
        """A message that is no request is answered with the reason."""
        await self.begin()
        for body, properties, exc_type, words in BAD_REQUESTS:
            error = await self.error_of("service.call", body, **properties)
            self.assertEqual(error["exc_type"], exc_type, (body, properties))
            self.assertIn(words, error["value"])
        await self.well([])

    async def test_requests_without_reply_to(self) -> None:
        """A message that is no request and can't be answered is rejected, with the reason in the log."""
        await self.begin()
        lines = self.lines()
        for body, properties, _, words in BAD_REQUESTS:
            lines.things.clear()
            await self.publish("nameko-rpc", "service.call", body, **properties)
            (line,) = await lines.wait()
            self.assertIn("service.call has no reply_to, rejected: ", line)
            self.assertIn(words, line)
        await self.well([])

    async def test_good_requests_without_reply_to(self) -> None:
        """A good request that can't be answered is done once; one without a correlation id is answered without."""
        heard = await self.begin()
        await self.publish("nameko-rpc", "service.call", GOOD)
        self.assertEqual(await heard.wait(), [1])
        reply = await self.request("service.call", GOOD, correlation_id=None)
        self.assertNotIn("correlation_id", reply.properties)
        await self.well([1, 1])

    async def test_stacks(self) -> None:
        """A call id stack that is no list is ignored, for calls, events and messages."""
        heard = await self.begin()
        for stack in BAD_STACKS:
            headers = {"nameko.call_id_stack": stack, "nameko.": 1, "": 2}
            await self.request("service.call", GOOD, headers=headers)
            await self.publish("source.events", "type", 1, headers=headers)
            await self.publish("x", "key", 1, headers=headers)
        await heard.wait(3 * len(BAD_STACKS))
        await self.well([1] * 3 * len(BAD_STACKS))

    async def test_events_and_messages(self) -> None:
        """A message that can't be read is rejected, to the queue's dead letters if there are any; the log says why."""
        await self.begin()
        lines = self.lines()
        for body, properties, words in BAD_MESSAGES:
            for exchange, key, method in (("source.events", "type", "hear"), ("x", "key", "take")):
                lines.things.clear()
                await self.publish(exchange, key, body, **properties)
                (line,) = await lines.wait()
                self.assertRegex(line, f"^service.{method}: <Message .* rejected: .*{words}")
        await self.well([])

    async def test_bodies_without_a_type(self) -> None:
        """A body of no type, or of application/data, is text for events and messages."""
        heard = await self.begin()
        for content_type in (None, "application/data", "application/text"):
            await self.publish("source.events", "type", b"\xc3\xb8", content_type=content_type)
            await self.publish("x", "key", b"\xc3\xb8", content_type=content_type)
        await heard.wait(6)
        await self.well(["ø"] * 6)

    async def test_exits(self) -> None:
        """SystemExit and its like, raised by a method, are errors at the caller; nameko's process ends by them."""
        await self.begin()
        for which, name in enumerate(("SystemExit", "KeyboardInterrupt", "GeneratorExit")):
            error = await self.error_of("service.leave", {"args": [which], "kwargs": {}})
            self.assertEqual((error["exc_type"], error["value"]), (name, "out"))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit, KeyboardInterrupt, GeneratorExit)), 3)
        await self.well([])

    async def test_replies(self) -> None:
        """A reply that can't be read fails its call; nameko drops it, and the caller waits for ever."""
        waiting = Waiting()
        await self.start(waiting.service)
        cluster = await self.cluster()
        client = client_of(cluster)
        for body, properties, _ in BAD_MESSAGES:
            call = cluster.waiting.method()
            await waiting.called(len(waiting.answers) + 1)
            (correlation_id,) = client.pending
            whole = {**JSON, "correlation_id": correlation_id, **properties}
            await self.bare.publisher.publish("nameko-rpc", client.replies.reply_to, body, whole, mandatory=True)
            with self.assertRaises(DecodeError):
                await call
        for answer in waiting.answers:
            answer.callback("late")
        self.assertEqual(client.pending, {})
