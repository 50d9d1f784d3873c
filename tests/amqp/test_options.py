"""Options of messages: how they add up, and what they make of a value."""

from __future__ import annotations

import zlib
from fractions import Fraction
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.options import FIELDS, IGNORED, PROPERTIES, PublisherOptions, Sending
from txservices.exceptions import ConfigurationError
from txservices.messaging import decode_from_headers
from txservices.serialization import Serializers

JSON = Serializers({})


class SendingTests(SynchronousTestCase):
    """Options, merged."""

    def write(self, value: Any = 1, headers: Any = None, **options: Any) -> tuple[dict[str, Any], bytes]:
        return Sending().merged(options).write(JSON, value, headers or {})

    def test_defaults(self) -> None:
        """Without options a message is JSON and persistent."""
        properties, body = self.write({"a": 1})
        self.assertEqual(body, b'{"a": 1}')
        self.assertEqual(
            properties,
            {
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "headers": {},
                "delivery_mode": 2,
                "priority": 0,
            },
        )

    def test_properties(self) -> None:
        """Every AMQP property can be given; expiration in seconds, as kombu has it."""
        given = {
            "delivery_mode": 1,
            "priority": 9,
            "correlation_id": "c",
            "reply_to": "r",
            "message_id": "m",
            "timestamp": 1,
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
        }
        properties, _ = self.write(expiration=10, **given)
        self.assertEqual(properties.pop("expiration"), "10000")
        self.assertEqual({name: properties[name] for name in given}, given)
        self.assertEqual(self.write(expiration=0.5)[0]["expiration"], "500")

    def test_order_of_headers(self) -> None:
        """The call's header wins also where a broker has sorted them by their names."""
        context = {"nameko.language": "en"}
        for below in ({}, {"language": "fr"}, {"nameko.language": "fr"}):
            for call in ({"language": "de"}, {"nameko.language": "de"}):
                sending = Sending().merged({"headers": below}).merged({"headers": call}, of_call=True)
                headers = sending.write(JSON, 1, context)[0]["headers"]
                for order in (list(headers), sorted(headers), sorted(headers, reverse=True)):
                    read = decode_from_headers({name: headers[name] for name in order})
                    self.assertEqual(read, {"language": "de"}, (below, call, order))

    def test_times(self) -> None:
        """A time is a number of seconds within its limit, or None; anything else is an error at once, which says so."""
        for name, most in (("timeout", 2_147_483), ("expiration", 4_294_967), ("delay", 4_000_000)):
            for value in (None, 0, 1, 0.5, Fraction(1, 2), True + 1, most):
                Sending().merged({name: value})
            for value in ("5", b"5", True, [5], 5j, {}, object()):
                error = self.assertRaises(TypeError, Sending().merged, {name: value})
                self.assertIn(f"{name} is {value!r}: give seconds as a number, or None", str(error))
            for value in (float("nan"), float("inf"), most + 1, 10**400):
                error = self.assertRaises(ValueError, Sending().merged, {name: value})
                self.assertIn(f": give seconds from 0 to {most:,}, or None", str(error))
        for name in ("expiration", "delay"):
            self.assertRaises(ValueError, Sending().merged, {name: -1})
        self.assertEqual(Sending().merged({"timeout": -1}).timeout, -1)

    def test_serializer(self) -> None:
        """A serializer of its own, by name; one that there isn't is refused."""
        properties, body = self.write((1,), serializer="yaml")
        self.assertEqual((properties["content_type"], body), ("application/x-yaml", b"- 1\n"))
        with self.assertRaises(ConfigurationError):
            self.write(serializer="nothing")

    def test_content_type(self) -> None:
        """With a content type the body goes as it is, text or bytes and nothing else."""
        properties, body = self.write("ø", content_type="text/x", content_encoding="latin-1")
        self.assertEqual((properties["content_type"], properties["content_encoding"]), ("text/x", "latin-1"))
        self.assertEqual(body, b"\xf8")
        properties, body = self.write(b"\xff", content_type="image/x")
        self.assertEqual((properties["content_encoding"], body), ("binary", b"\xff"))
        with self.assertRaises(TypeError):
            self.write({"a": 1}, content_type="text/x")

    def test_compression(self) -> None:
        """A compressed body says so in a header; a compression that there isn't is refused."""
        properties, body = self.write("x" * 100, {"nameko.a": 1}, compression="gzip")
        self.assertEqual(properties["headers"], {"nameko.a": 1, "compression": "application/x-gzip"})
        self.assertEqual(zlib.decompress(body), b'"' + b"x" * 100 + b'"')
        with self.assertRaises(ConfigurationError):
            self.write(compression="nothing")

    def test_precedence(self) -> None:
        """A call's options go over the provider's, its context over both; declarations add up."""
        first, second = Exchange("first"), Queue("second")
        sending = Sending.of({"PUBLISH_TIMEOUT": 7}, {"priority": 1, "headers": {"a": 1, "b": 1}, "declare": [first]})
        merged = sending.merged({"priority": 2, "headers": {"b": 2, "nameko.c": 2}, "declare": [second]})
        properties, _ = merged.write(JSON, 1, {"nameko.c": 3})
        self.assertEqual((properties["priority"], properties["headers"]), (2, {"a": 1, "b": 2, "nameko.c": 3}))
        self.assertEqual((merged.declare, merged.timeout), ((first, second), 7))
        self.assertEqual(sending.properties["priority"], 1)

    def test_options_of_nameko_alone(self) -> None:
        """Retries are no option here, and no error: what is published is sent until it is confirmed."""
        self.assertEqual(Sending().merged({"retry": True, "retry_policy": {"max_retries": 3}}), Sending())

    def test_options_are_typed(self) -> None:
        """Every option that is known has its type and its unit told, and no other has."""
        told = set(PublisherOptions.__annotations__) | {"declare"}
        self.assertEqual(told, FIELDS | PROPERTIES | IGNORED | {"headers", "declare"})

    def test_unknown_option(self) -> None:
        """An option that means nothing is refused."""
        with self.assertRaises(TypeError):
            Sending().merged({"mandatry": True})
