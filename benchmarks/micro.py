"""`python -m benchmarks.micro`: the cost of single steps of the hot path, beside the plain way to do the same.

Each row is the reason for some code that is longer than it would have to be. The figures are microseconds of one call,
the best of a few turns, in this process alone: no broker, no socket. docs/performance.md has those of one machine.
"""

from __future__ import annotations

import argparse
import inspect
import json
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.web.server import Site
from werkzeug.wrappers import Request, Response

from tests.web.peer import Peer
from txservices.amqp.spec import txamqp_spec
from txservices.awaited import Answer
from txservices.broker.assemblers import Publishes
from txservices.broker.exchanges import Exchange
from txservices.broker.messages import read_expiration, read_flags
from txservices.broker.queues import Queue
from txservices.broker.watermark import Watermark
from txservices.runners import ServiceRunner
from txservices.serialization import jsonvalues
from txservices.utils.ids import new_id
from txservices.utils.signatures import acceptance_of
from txservices.web.handlers import http
from txservices.web.messages import HttpRequest, final_headers
from txservices.wire import codec, frames
from txservices.wire.frames import Assembler, content_frames, frame
from txservices.wire.spec import BASIC_CLASS, FRAME_BODY, FRAME_HEADER, FRAME_METHOD, METHODS_BY_ID

TURNS = 5
SECONDS = 0.03  # of one turn

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One step: our way, and the plain way if there is one."""

    name: str
    ours: str
    call: Call
    plain: str = ""
    other: Call | None = None


def microseconds(call: Call, seconds: float = SECONDS, turns: int = TURNS) -> float:
    """The microseconds that a call takes: the best of so many turns, each of about so many seconds."""
    timer = timeit.Timer(call)
    number = 1
    while (took := timer.timeit(number)) < seconds and number < 10_000_000:
        number = max(number + 1, int(number * min(10.0, 1.2 * seconds / max(took, 1e-9))))
    return min([took, *timer.repeat(turns - 1, number)]) / number * 1e6


# The data of the steps ------------------------------------------------------------------------------------------------

REQUEST = {"args": [7], "kwargs": {"name": "ada"}}
BODY = json.dumps(REQUEST).encode()
PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"nameko.call_id_stack": ["web.page.1", "maths.add.2"]},
    "delivery_mode": 2,
    "priority": 0,
    "correlation_id": str(uuid4()),
    "reply_to": str(uuid4()),
    "expiration": "60000",
    "message_id": str(uuid4()),
}
HEADER = codec.encode_properties(PROPERTIES)
ACK = codec.encode_ack(7, True)
DELIVER = codec.encode_method(
    "basic.deliver", consumer_tag="1", delivery_tag=7, exchange="nameko-rpc", routing_key="maths.add"
)
PUBLISH = codec.encode_method("basic.publish", exchange="nameko-rpc", routing_key="maths.add", mandatory=True)


def method(number: int, name: str = "", *, upper: bool = False) -> None:
    """A method that takes the arguments of ``REQUEST``."""


def nothing(content: object) -> None:
    """Takes a message from an assembler, and does nothing with it."""


def encode_by_table() -> bytes:
    """Write properties by a loop over all of AMQP's, with a ``try`` for each."""
    flags, parts = 0, []
    for name, flag, kind in codec.PROPERTY_FLAGS:
        value = PROPERTIES.get(name)
        if value is not None:
            try:
                parts.append(codec.ARGUMENT_WRITERS[kind](value))
            except (TypeError, ValueError) as error:
                raise ValueError(f"property {name}={value!r}") from error
            flags |= flag
    return codec.SHORT.pack(flags) + b"".join(parts)


def decode_by_table() -> dict[str, Any]:
    """Read properties by a call for each."""
    properties, offset = {}, 2
    flags = codec.SHORT.unpack_from(HEADER)[0]
    for name, flag, kind in codec.PROPERTY_FLAGS:
        if flags & flag:
            properties[name], offset = codec.ARGUMENT_READERS[kind](HEADER, offset, 0)
    return properties


def method_by_table(payload: bytes) -> Call:
    """Read a method's frame by the table, like any method that has no quicker way."""

    def read() -> object:
        found = METHODS_BY_ID[codec.LONG.unpack_from(payload)[0]]
        return found, codec.read_arguments(payload, found)

    return read


def frame_by_frame() -> bytes:
    """Make the three frames of a message one by one."""
    header = frames.HEADER.pack(BASIC_CLASS, 0, len(BODY)) + HEADER
    return b"".join([frame(FRAME_METHOD, 1, PUBLISH), frame(FRAME_HEADER, 1, header), frame(FRAME_BODY, 1, BODY)])


def published(assembler: Assembler) -> Call:
    """Give an assembler the method of a publish, without the rest of the message."""

    def take() -> None:
        assembler.frame = assembler.receive_method
        assembler.frame(FRAME_METHOD, PUBLISH)

    return take


def topics(number: int) -> Call:
    """A topic exchange with so many bindings, one of which takes the message."""
    exchange = Exchange("topics", "topic")
    queue = Queue("queue")
    for each in range(number):
        exchange.bind(queue, f"orders.{each}.*", {})
    return lambda: exchange.match(f"orders.{number // 2}.paid", dict)


def awaited(given: Callable[[Deferred[Any]], Deferred[Any]]) -> Call:
    """A call's Deferred from its making to the value that is awaited, as a worker does it."""

    async def method(answer: Deferred[Any]) -> Any:
        return await answer

    def wait() -> object:
        answer: Deferred[Any] = Deferred()
        waiting = Deferred.fromCoroutine(method(given(answer)))
        answer.callback(None)
        return waiting

    return wait


class Pages:
    """Two pages of the same text."""

    name = "pages"

    @http("GET", "/text")
    def text(self, request: HttpRequest) -> str:
        return "text"

    @http("GET", "/response")
    def response(self, request: HttpRequest) -> Response:
        return Response("text")


def page(path: str) -> Call:
    """A GET on a connection in memory, from the bytes of the request to those of the response."""
    reactor = MemoryReactorClock()
    runner = ServiceRunner({"WEB_SERVER_ADDRESS": "127.0.0.1:8000"}, reactor)
    runner.add_service(Pages)
    runner.start()
    return partial(Peer(reactor.tcpServers[-1][1]).get, path)


def kleins_page() -> Call:
    """A GET by Klein's own resource on Twisted's own site."""
    app = Klein()
    app.route("/text")(lambda request: "text")
    return partial(Peer(Site(app.resource(), reactor=MemoryReactorClock())).get, "/text")  # type: ignore[arg-type]


def rows() -> list[Row]:
    """All rows. Some take a while to make: they need services that run, or thousands of bindings."""
    accepts = acceptance_of(method)
    received = SimpleNamespace(content=None, scheme="http")
    environ = HttpRequest(
        SimpleNamespace(
            content=None, scheme="http", uri=b"/text", client=None, host=None, clientproto=b"HTTP/1.1",
            requestHeaders=SimpleNamespace(getAllRawHeaders=lambda: [(b"Host", [b"here"]), (b"Accept", [b"*/*"])]),
        ), "GET", "/text", {},
    )  # fmt: skip
    response = Response("text")
    flags = read_flags(HEADER)
    ours, plain = Publishes(nothing, {}, Watermark(), lambda: None), Assembler(nothing)
    return [
        Row("id", "new_id", new_id, "str(uuid4())", lambda: str(uuid4())),
        Row(
            "signature", "a function of the method's parameters", lambda: accepts(7, name="ada"),
            "inspect.getcallargs", lambda: inspect.getcallargs(method, 7, name="ada"),
        ),
        Row("json-out", "a C encoder made once", lambda: jsonvalues.encode_json(REQUEST),
            "json.dumps", lambda: json.dumps(REQUEST, default=jsonvalues.wrap)),
        Row("json-in", "msgspec", lambda: jsonvalues.decode_json(BODY), "json.loads", lambda: json.loads(BODY)),
        Row("ack-out", "one Struct", lambda: codec.encode_ack(7, True),
            "the table", lambda: codec.encode_method(codec.ACK, delivery_tag=7, multiple=True)),
        Row("ack-in", "one Struct", lambda: codec.decode_method(ACK),
            "the table", method_by_table(ACK)),
        Row("deliver-in", "a look-up of what repeats", lambda: codec.decode_method(DELIVER),
            "the table", method_by_table(DELIVER)),
        Row("properties-out", "a function for each layout", lambda: codec.encode_properties(PROPERTIES),
            "a loop over all", encode_by_table),
        Row("properties-in", "a function for each layout", lambda: codec.decode_properties(HEADER),
            "a call for each", decode_by_table),
        Row("content-out", "three frames joined in one go",
            lambda: content_frames(1, PUBLISH, HEADER, BODY), "three calls of frame()", frame_by_frame),
        Row("answer", "an Answer, awaited", awaited(lambda deferred: Answer("maths.add", deferred)),
            "a Deferred, awaited", awaited(lambda deferred: deferred)),
        Row("spec", "txamqp's view of the table, once a process", txamqp_spec),
        Row("broker-publish", "a look-up of the bytes", published(ours), "decoded each time", published(plain)),
        Row("broker-ack", "in a straight line", lambda: ours.receive_method(FRAME_METHOD, ACK),
            "as any method", lambda: plain.receive_method(FRAME_METHOD, ACK)),
        Row("broker-expiration", "read in place", lambda: read_expiration(HEADER, flags),
            "all properties decoded", lambda: codec.decode_properties(HEADER)),
        Row("broker-header", "kept as bytes", lambda: HEADER,
            "decoded and encoded again", lambda: codec.encode_properties(codec.decode_properties(HEADER))),
        Row("broker-topic", "10,000 bindings", topics(10_000), "10 bindings", topics(10)),
        Row("web-request", "HttpRequest", lambda: HttpRequest(received, "GET", "/text", {}),
            "an environ, read from", lambda: Request(dict(environ.environ)).headers),
        Row("web-headers", "as they are", lambda: final_headers(response),
            "werkzeug's copy", lambda: response.get_wsgi_headers({})),
        Row("web-text", "GET, text given", page("/text"), "GET, a Response given", page("/response")),
        Row("web-router", "GET by our site and router", page("/text"), "by Klein's and Twisted's", kleins_page()),
    ]  # fmt: skip


def line(row: Row, seconds: float = SECONDS) -> str:
    """Measure a row, and give a line of a table in Markdown."""
    cells = [row.name, row.ours, f"{microseconds(row.call, seconds):,.2f}"]
    cells += [row.plain, "" if row.other is None else f"{microseconds(row.other, seconds):,.2f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    every = {row.name: row for row in rows()}
    parser = argparse.ArgumentParser(prog="benchmarks.micro", description="single steps, in microseconds")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all if none is named: {', '.join(every)}")
    chosen = parser.parse_args().rows or list(every)
    if unknown := set(chosen) - set(every):
        parser.error(f"no row {', '.join(sorted(unknown))}: there are {', '.join(every)}")
    print("| step | our way | us | the plain way | us |")
    print("|--|--|--:|--|--:|")
    for name in chosen:
        print(line(every[name]), flush=True)


if __name__ == "__main__":
    main()
