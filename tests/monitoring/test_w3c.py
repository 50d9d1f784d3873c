"""traceparent, tracestate and baggage: read as W3C says, and whatever else comes is as good as nothing."""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.trial.unittest import SynchronousTestCase

from txservices.monitoring.w3c import (
    BAGGAGE_MAX,
    BAGGAGE_MEMBERS_MAX,
    TRACEPARENT_MAX,
    TRACESTATE_MAX,
    baggage_of,
    not_recorded,
    parent_of,
    received,
    send,
    send_baggage,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"

GOOD = [
    PARENT,
    f"00-{TRACE}-{SPAN}-00",
    f"00-{TRACE}-{SPAN}-03",
    f"cc-{TRACE}-{SPAN}-01",  # a version to come
    f"cc-{TRACE}-{SPAN}-01-what-it-may-say",
]
BAD: list[Any] = [
    None,
    "",
    "00",
    PARENT[:-1],
    f"{PARENT}0",
    f"{PARENT}-more",  # version 0 has no more
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE[:-1]}_-{SPAN}-01",
    f"00-{TRACE[:-1]}\uff11-{SPAN}-01",  # a digit to Python
    f"00-{TRACE}-{SPAN}-0g",
    PARENT.replace("-", "_"),
    f"{PARENT}\n",
    f"{PARENT},{PARENT}",
    f"cc-{TRACE}-{SPAN}-01-{'x' * TRACEPARENT_MAX}",
    "x" * 1_000_000,
    PARENT.encode(),
    [PARENT],
    {"traceparent": PARENT},
    1,
    1.5,
    True,
]


class Parents(SynchronousTestCase):
    """The span that has led here."""

    def test_good(self) -> None:
        """Each that is good is read as OpenTelemetry's own propagator reads it, and written as it came."""
        for text in GOOD:
            with self.subTest(text=text):
                found = parent_of({"traceparent": text})
                assert found is not None
                context = TraceContextTextMapPropagator().extract({"traceparent": text})
                self.assertEqual(found, get_current_span(context).get_span_context())
                self.assertTrue(found.is_remote)
                headers: dict[str, Any] = {}
                send(found, headers)
                self.assertEqual(headers, {"traceparent": f"00{text[2:55]}"})

    def test_bad(self) -> None:
        """One that is wrong in length, form or type is none, and nothing is logged."""
        for value in BAD:
            with self.subTest(value=str(value)[:80]):
                self.assertIsNone(parent_of({"traceparent": value}))
        self.assertIsNone(parent_of({}))

    def test_prefix(self) -> None:
        """In headers the keys have nameko's prefix."""
        self.assertIsNotNone(parent_of({"nameko.traceparent": PARENT}, "nameko."))
        self.assertIsNone(parent_of({"traceparent": PARENT}, "nameko."))

    def test_tracestate(self) -> None:
        """It comes with the parent and goes on; one that can't be is left out, and the parent stays."""
        cases: list[tuple[Any, str]] = [
            ("a=1,b=2", "a=1,b=2"),
            ("", ""),
            ("a=1" + "x" * TRACESTATE_MAX, ""),
            ("ä=1", ""),
            ("nothing", ""),
            ("a=1,nothing", ""),
            ("A=1", ""),
            ("a=1=2", ""),
            (" a=1 , b=2,", "a=1,b=2"),
            (b"a=1", ""),
            (["a=1"], ""),
            (1, ""),
        ]
        for state, text in cases:
            with self.subTest(state=str(state)[:20]):
                found = parent_of({"traceparent": PARENT, "tracestate": state})
                assert found is not None
                headers = {"tracestate": "old"}
                send(found, headers)
                self.assertEqual(headers.get("tracestate", ""), text)

    def test_nothing_to_send(self) -> None:
        """A context without a span takes what was there out of the headers."""
        headers = {"traceparent": "bad", "tracestate": "a=1", "else": 1}
        send(SpanContext(0, 0, False), headers)
        self.assertEqual(headers, {"else": 1})


class ParentsThatAreNotRecorded(SynchronousTestCase):
    """The same in short, for traces that nobody records."""

    def test_good(self) -> None:
        """One that is not sampled goes on as it came, and has its ids for whoever asks. All others are not taken."""
        for text in GOOD:
            with self.subTest(text=text):
                found = not_recorded({"nameko.traceparent": text}, "nameko.")
                self.assertEqual(found is not None, text == f"00-{TRACE}-{SPAN}-00")
                if found is not None:
                    headers = {"nameko.tracestate": "old"}
                    found.send(headers, "nameko.")
                    self.assertEqual(headers, {"nameko.traceparent": text})
                    self.assertEqual(found.get_span_context(), parent_of(headers, "nameko."))
                    self.assertFalse(found.is_recording())
                    self.assertIn(text, repr(found))

    def test_bad(self) -> None:
        """What is no traceparent is none here, either."""
        for value in [*BAD, *(each.replace("-01", "-00") for each in BAD if isinstance(each, str))]:
            with self.subTest(value=str(value)[:80]):
                self.assertIsNone(not_recorded({"traceparent": value}))
        self.assertIsNone(not_recorded({}))

    def test_tracestate(self) -> None:
        """It goes on if it can be, and is left out otherwise."""
        for state, text in [("a=1,b=2", "a=1,b=2"), ("A=1", None), (1, None), ("", None), (" a=1 , b=2,", "a=1,b=2")]:
            found = not_recorded({"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": state})
            assert found is not None
            headers: dict[str, Any] = {"tracestate": state}
            found.send(headers)
            with self.subTest(state=state):
                self.assertEqual(headers.get("tracestate"), text)
                self.assertEqual(found.get_span_context().trace_state.to_header(), text or "")


class BaggageTests(SynchronousTestCase):
    """What callers say along with a trace."""

    def test_read(self) -> None:
        """Keys and values are read as OpenTelemetry's own propagator reads them; members that can't be are left out."""
        for text in ["a=b", "a=b,c=d", "a=b,c=d;property=1", "a=1%2C2", "k=", "a=b,,c=d,"]:
            with self.subTest(text=text):
                context = W3CBaggagePropagator().extract({"baggage": text})
                theirs = {key: str(value).partition(";")[0] for key, value in baggage.get_all(context).items()}
                self.assertEqual(baggage_of(text), theirs)
        self.assertEqual(baggage_of(" a = b ,\tc=d ; property"), {"a": "b", "c": "d"})
        self.assertEqual(baggage_of("nonsense,a=b,=c,d d=e"), {"a": "b"})

    def test_bounds(self) -> None:
        """A text over 8,192 bytes, or one that is no ASCII or no text, is none; of many members the first are read."""
        longest = "a=" + "b" * (BAGGAGE_MAX - 2)
        self.assertEqual(len(baggage_of(longest)["a"]), BAGGAGE_MAX - 2)
        bad: list[Any] = [f"{longest}b", "x" * 1_000_000, "ä=b", b"a=b", ["a=b"], {"a": "b"}, 1, None, ""]
        for value in bad:
            with self.subTest(value=str(value)[:20]):
                self.assertEqual(baggage_of(value), {})
        many = ",".join(f"k{number}=v" for number in range(1000))
        self.assertEqual(list(baggage_of(many)), [f"k{number}" for number in range(BAGGAGE_MEMBERS_MAX)])

    def test_sent(self) -> None:
        """It is written in place of what headers have, also if it is empty."""
        headers: dict[str, Any] = {"nameko.baggage": "old=1"}
        send_baggage(received(None, {"a": "1,2"}), headers, "nameko.")
        self.assertEqual(headers, {"nameko.baggage": "a=1%2C2"})
        send_baggage(received(None, {}), headers, "nameko.")
        self.assertEqual(headers, {})
