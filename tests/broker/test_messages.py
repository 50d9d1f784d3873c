"""The broker reads a message's properties, and writes those of a dead letter."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.broker import messages
from txservices.broker.messages import Message
from txservices.exceptions import AmqpError, FrameError
from txservices.wire.codec import decode_properties, encode_properties

EVERYTHING: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"a": [1, {"b": None}]},
    "delivery_mode": 2,
    "priority": 0,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "message_id": "m",
    "user_id": "guest",
}


def read(properties: dict[str, Any]) -> int | None:
    header = encode_properties(properties)
    return messages.read_expiration(header, messages.read_flags(header))


def message(**properties: Any) -> Message:
    return Message("x", "k", b"\x01x\x01k", encode_properties(properties), b"body")


class ReadTests(SynchronousTestCase):
    """Properties read in place."""

    def test_expiration_behind_any_others(self) -> None:
        """The expiration is found whichever other properties stand before and after it."""
        names = [name for name in EVERYTHING if name != "expiration"]
        for chosen in range(1 << len(names)):
            properties = {name: EVERYTHING[name] for bit, name in enumerate(names) if chosen >> bit & 1}
            self.assertEqual(read({**properties, "expiration": "60000"}), 60000)
            self.assertIsNone(read(properties))

    def test_numbers(self) -> None:
        """An expiration is up to ten years of milliseconds, and may have a sign and zeros before it."""
        most = 315_360_000_000
        for text, expected in (("0", 0), ("007", 7), ("+5", 5), ("-0", 0), ("0" * 240 + str(most), most)):
            self.assertEqual(read({"expiration": text}), expected)

    def test_not_a_number(self) -> None:
        """An expiration that is no number of milliseconds is 406."""
        for text in ("", "abc", "-1", "1.5", "315360000001", "9" * 255, "٣", "+", "++5", " 5", "5\n", "1_0"):
            error = self.assertRaises(AmqpError, read, {"expiration": text})
            self.assertEqual(error.code, 406)

    def test_cut(self) -> None:
        """Properties that end before the expiration are a syntax error and nothing worse."""
        header = encode_properties(EVERYTHING)
        for length in range(2, header.index(b"\x0560000")):
            error = self.assertRaises(AmqpError, messages.read_expiration, header[:length], messages.read_flags(header))
            self.assertIn(error.code, (406, 502))

    def unusual(self, properties: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The properties that go out, and the further routing keys."""
        header = encode_properties(properties)
        header, others = messages.read_unusual(header, messages.read_flags(header), "guest", lambda: "here")
        return decode_properties(header), others

    def test_user_id(self) -> None:
        """A user id has to be the sender's."""
        self.assertEqual(self.unusual({"user_id": "guest"}), ({"user_id": "guest"}, ()))
        self.assertEqual(self.assertRaises(AmqpError, self.unusual, {"user_id": "other"}).code, 406)

    def test_copies(self) -> None:
        """CC and BCC are further keys, and BCC does not go out. Elsewhere the words mean nothing."""
        for headers, others, out in (
            ({"CC": ["a", "b"]}, ("a", "b"), {"CC": ["a", "b"]}),
            ({"BCC": ["a"]}, ("a",), {}),
            ({"x": 1, "BCC": ["b", "c"], "CC": ["a"], "y": None}, ("a", "b", "c"), {"x": 1, "CC": ["a"], "y": None}),
            ({"CC": []}, (), {"CC": []}),
            ({"CC": [1, None, ["a"], {"a": 1}, "b"]}, ("b",), {"CC": [1, None, ["a"], {"a": 1}, "b"]}),
            ({"CC": [b"\xff"]}, ("\udcff",), {"CC": [b"\xff"]}),
            ({"a": "\x02CC", "b": {"CC": 1, "BCC": 2}}, (), {"a": "\x02CC", "b": {"CC": 1, "BCC": 2}}),
        ):
            for more in ({}, {name: value for name, value in EVERYTHING.items() if name != "headers"}):
                self.assertEqual(self.unusual({**more, "headers": headers}), ({**more, "headers": out}, others))

    def test_copies_of_the_wrong_kind(self) -> None:
        """CC and BCC that are no array are 406."""
        for name in ("CC", "BCC"):
            for value in ("a", b"a", None, 5, 1.5, True, {"a": 1}):
                error = self.assertRaises(AmqpError, self.unusual, {"headers": {name: value}})
                self.assertEqual(error.code, 406)

    def test_direct_reply_to(self) -> None:
        """The name of Direct Reply-to is replaced where it is the reply-to, and nowhere else."""
        name = messages.DIRECT_REPLY_TO
        for chosen in ([], ["headers"], ["content_type", "correlation_id"], list(EVERYTHING)):
            more = {each: EVERYTHING[each] for each in chosen}
            self.assertEqual(self.unusual({**more, "reply_to": name}), ({**more, "reply_to": "here"}, ()))
        for properties in ({"reply_to": f"{name}.x"}, {"reply_to": "r", "headers": {"a": name}}):
            self.assertEqual(self.unusual(properties), (properties, ()))

    def test_cut_before_the_headers(self) -> None:
        """Properties that end before the headers are a syntax error, though the word stands in them."""
        header = b"\xe0\0\x03\x02CC"
        error = self.assertRaises(AmqpError, messages.read_unusual, header, 0xE000, "guest", str)
        self.assertEqual(error.code, 502)

    def test_cut_unusual(self) -> None:
        """Properties that end too early are a syntax error, wherever they end."""
        whole = {**EVERYTHING, "headers": {"CC": ["a"]}, "reply_to": messages.DIRECT_REPLY_TO}
        header = encode_properties({name: value for name, value in whole.items() if name != "user_id"})
        flags = messages.read_flags(header)
        for length in range(2, len(header)):
            # what was cut off comes again, so that the words are there
            try:
                messages.read_unusual(header[:length] + header[2:], flags, "guest", lambda: "here")
            except (AmqpError, FrameError) as error:
                self.assertIn(error.code, (406, 502), length)


class DeadLetterTests(SynchronousTestCase):
    """x-death."""

    def test_headers_that_cannot_be_written(self) -> None:
        """A letter is kept, without the headers that can be read and not written: a stranger's NaN, a time too late."""
        for field in (b"d\x7f\xf8" + b"\0" * 6, b"f\x7f\x80\0\0", b"T" + b"\xff" * 8):
            properties = b"\x01kI\0\0\0\x05\x01n" + field
            header = b"\x20\x00" + len(properties).to_bytes(4, "big") + properties
            letter = messages.dead_letter(messages.Message("x", "k", b"", header, b""), "expired", "q", "", None, 0)
            headers = decode_properties(letter.header)["headers"]
            self.assertEqual((headers["k"], headers.get("n"), headers["x-death"][0]["count"]), (5, None, 1))

    def test_first_death(self) -> None:
        """A dead letter says why, where, when and how often it died, and keeps everything else but its expiration."""
        letter = messages.dead_letter(message(**EVERYTHING), "expired", "q", "dlx", None, 100.0)
        properties = decode_properties(letter.header)
        headers = properties.pop("headers")
        death = {
            "count": 1,
            "reason": "expired",
            "queue": "q",
            "time": datetime.fromtimestamp(100, timezone.utc),
            "exchange": "x",
            "routing-keys": ["k"],
            "original-expiration": "60000",
        }
        self.assertEqual(headers.pop("x-death"), [death])
        self.assertEqual(
            headers,
            {
                **EVERYTHING["headers"],
                "x-first-death-reason": "expired",
                "x-first-death-queue": "q",
                "x-first-death-exchange": "x",
                "x-last-death-reason": "expired",
                "x-last-death-queue": "q",
                "x-last-death-exchange": "x",
            },
        )
        self.assertEqual(
            properties, {key: value for key, value in EVERYTHING.items() if key not in ("headers", "expiration")}
        )
        self.assertEqual((letter.exchange, letter.routing_key, letter.body), ("dlx", "k", b"body"))
        self.assertEqual(letter.address, b"\x03dlx\x01k")

    def test_again(self) -> None:
        """The same death again is counted and comes first; the first one of all stays named."""
        letter = message()
        for reason, queue in (("rejected", "q"), ("expired", "wait"), ("rejected", "q")):
            letter = messages.dead_letter(letter, reason, queue, "dlx", "key", 0)
        headers = decode_properties(letter.header)["headers"]
        deaths = [(death["queue"], death["reason"], death["count"]) for death in headers["x-death"]]
        self.assertEqual(deaths, [("q", "rejected", 2), ("wait", "expired", 1)])
        self.assertEqual((headers["x-first-death-queue"], letter.routing_key), ("q", "key"))

    def test_last_death(self) -> None:
        """The last death is named beside the first, as RabbitMQ does since 3.13."""
        letter = messages.dead_letter(message(), "rejected", "q", "dlx", None, 0)
        letter = messages.dead_letter(letter, "expired", "wait", "", None, 0)
        headers = decode_properties(letter.header)["headers"]
        named = [headers[f"x-{which}-death-{what}"] for which in ("first", "last") for what in ("queue", "reason")]
        self.assertEqual(named, ["q", "rejected", "wait", "expired"])

    def test_circles(self) -> None:
        """A letter that comes back with nobody having rejected it goes in circles; one rejected on the way doesn't."""
        letter = messages.dead_letter(message(), "expired", "a", "", None, 0)
        letter = messages.dead_letter(letter, "maxlen", "b", "", None, 0)
        self.assertEqual([messages.goes_in_circles(letter, name) for name in "abc"], [True, True, False])
        letter = messages.dead_letter(letter, "rejected", "c", "", None, 0)
        self.assertEqual([messages.goes_in_circles(letter, name) for name in "abc"], [False, False, False])

    def test_forged(self) -> None:
        """An x-death that a client made up is no error."""
        for forged in ("text", 5, [1, "a"], [{"count": "x"}], {"a": 1}):
            letter = messages.dead_letter(message(headers={"x-death": forged}), "expired", "q", "", None, 0)
            self.assertEqual(len(decode_properties(letter.header)["headers"]["x-death"]), 1)
