"""Conversations with the embedded broker, recorded in memory: what the bad bytes of ``test_bytes`` are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.faults.mutations import Pieces, pieces_of
from tests.services import numbers
from txservices.amqp.entities import Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.publishing import Publishing
from txservices.broker import memory
from txservices.broker.server import Broker
from txservices.broker.session import Session
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import AmqpError
from txservices.messaging import consume
from txservices.rpc import rpc
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.utils.address import parse_address
from txservices.web.handlers import http
from txservices.web.websocket import rpc as websocket_rpc
from txservices.wire.codec import encode_properties

HEARTBEAT = 10  # seconds
HEADERS = {
    "stack": ["a.b.1", "c.d.2"], "number": 7, "table": {"deep": {"deeper": [1, 2.5, None, True]}}, "bytes": b"\xff\0",
}  # fmt: skip
SMALL = (b"", b"one", b"two" * 50)
BIG = (b"big" * 60_000,)  # several frames of it


class Recorder:
    """The bytes that passed on each connection, each way."""

    def __init__(self) -> None:
        self.up: list[bytearray] = []
        self.down: list[bytearray] = []
        self.join = memory.join

    def __call__(self, client: Any, server: Any, clock: Any, address: Any = None) -> Any:
        """In place of ``memory.join``."""
        self.record(client, self.down)
        self.record(server, self.up)
        return self.join(client, server, clock, address)

    def record(self, protocol: Any, streams: list[bytearray]) -> None:
        receive, stream = protocol.dataReceived, bytearray()
        streams.append(stream)

        def received(data: bytes) -> None:
            stream.extend(data)
            receive(data)

        protocol.dataReceived = received


class Service:
    """Everything that a service has to do with a broker."""

    name = "service"
    dispatch = EventDispatcher()

    @rpc
    async def tell(self, value: Any) -> Any:
        await self.dispatch("told", value)
        return value

    @rpc
    def fail(self) -> None:
        raise ValueError("so it is")

    @event_handler("service", "told")
    def told(self, value: Any) -> None:
        pass

    @consume(Queue("things"))
    def thing(self, value: Any) -> None:
        pass


def run_until(clock: Clock, done: Callable[[], Any]) -> None:
    """Let virtual time pass, a minute at most."""
    for _ in range(6000):
        if done():
            return
        clock.advance(0.01)
    raise AssertionError("not done after a minute")


def recorded_alone(test: TestCase, bodies: Sequence[bytes]) -> tuple[Pieces, Pieces]:
    """The bytes that the client said in ``converse``, and those that it was told, in pieces."""
    recorder = Recorder()
    clock = Clock()
    protocol = client(clock)
    recorder(protocol, Session(Broker(clock=clock), trusted=True), clock)
    ended = Deferred.fromCoroutine(converse(protocol, bodies))
    run_until(clock, lambda: ended.called and not protocol.transport.connected)
    test.assertEqual(test.successResultOf(ended), "")
    return pieces_of(bytes(recorder.up[0])), pieces_of(bytes(recorder.down[0]))


def recorded_services(test: TestCase) -> list[Pieces]:
    """The bytes that a service and its caller said, on each of their connections."""
    recorder = Recorder()
    test.patch(memory, "join", recorder)
    clock = Clock()
    name = f"recorded-{next(numbers)}"
    memory.brokers[name] = Broker(name, clock=clock)
    config = {"AMQP_URI": f"memory://{name}", "HEARTBEAT": HEARTBEAT}
    container, proxy = ServiceContainer(Service, config, clock=clock), ClusterRpcProxy(config, clock=clock)
    started, opened = container.start(), proxy.start()
    run_until(clock, lambda: started.called and opened.called)
    cluster = test.successResultOf(opened)
    asked = [cluster.service.tell({"a": [1, None, "ü"]}), cluster.service.fail(), cluster.service.nothing()]
    asked.append(proxy.connections.publisher.publish("", "things", b"{}", {"content_type": "application/json"}))
    for each in asked:
        each.addErrback(lambda _: None)
    run_until(clock, lambda: all(each.called for each in asked))
    clock.advance(HEARTBEAT)
    ended = [container.stop(), proxy.stop()]
    run_until(clock, lambda: all(each.called for each in ended))
    del memory.brokers[name]
    test.flushLoggedErrors(ValueError)
    return [pieces_of(bytes(each)) for each in recorder.up]


def client(clock: Clock) -> Protocol:
    return Protocol(parse_address("amqp://guest:guest@localhost/"), HEARTBEAT, "PLAIN", "tests", clock)


async def converse(protocol: Protocol, bodies: Sequence[bytes] = SMALL) -> str:
    """A client's bytes on one connection, from the first to the last; and how it ended, if badly."""
    try:
        await protocol.opened
        await talk(protocol, bodies)
        await protocol.channels[0].connection_close(reply_code=200, reply_text="done")
        protocol.do_close(AmqpError(200, "done"))
    except AmqpError as error:
        protocol.do_close(error)
        return f"{type(error).__name__} {error.code}"
    return ""


async def talk(protocol: Protocol, bodies: Sequence[bytes]) -> None:
    channel = await protocol.open_channel()
    await channel.exchange_declare(exchange="x", type="topic", durable=True)
    await channel.queue_declare(queue="q", arguments={"x-message-ttl": 9000, "x-dead-letter-exchange": ""})
    await channel.queue_bind(queue="q", exchange="x", routing_key="#")
    await channel.basic_qos(prefetch_count=10)
    await channel.confirm_select()
    await channel.consume("q", "t", lambda message: message.reject() if message.redelivered else message.ack())
    waiting = []
    for number, body in enumerate(bodies):
        waiting.append(publish(channel, "x" if number else "", f"k.{number}", body))
    for each in waiting:
        await each
    other = await protocol.open_channel()
    try:
        await other.queue_declare(queue="missing", passive=True)
    except AmqpError as error:
        if protocol.closed:
            raise error
    other = await protocol.open_channel()
    await other.basic_get(queue="q")
    await protocol.close_channel(other)
    await channel.basic_cancel(consumer_tag="t")
    await channel.queue_delete(queue="q")


def publish(channel: Any, exchange: str, key: str, body: bytes) -> Deferred[Any]:
    """Fires when the broker has answered for it, or the channel is closed."""
    answered: Deferred[Any] = Deferred()

    def done(*_: Any) -> None:
        if not answered.called:
            answered.callback(None)

    header = encode_properties({"headers": HEADERS, "message_id": key, "expiration": "60000", "delivery_mode": 2})
    closed = channel.on_closed
    channel.on_confirmed = lambda publishing, error: publishing.done(error)
    channel.on_closed = lambda error: (done(), closed and closed(error))
    channel.publish(Publishing(exchange, key, True, header, body, done, 60.0))
    return answered


# What browsers and programs say by HTTP: lines, and bodies.

BODY_MAX = 2000  # bytes
KEY = b"\x11\x22\x33\x44"  # of WebSocket frames


class Page:
    """Methods that take what HTTP can bring."""

    name = "page"

    @http("GET", "/")
    def page(self, request: Any) -> str:
        return f"a page for {request.headers.get('User-Agent')} and {dict(request.cookies)}"

    @http("GET", "/number/<int:number>")
    def number(self, request: Any, number: int) -> str:
        return f"{number} {list(request.args.items(multi=True))}"

    @http("GET", "/slash/")
    def slash(self, request: Any) -> str:
        return "a slash"

    @http("POST,PUT", "/length")
    def length(self, request: Any) -> str:
        return str(len(request.get_data()))

    @http("POST", "/form")
    def form(self, request: Any) -> tuple[int, str]:
        files = [(name, len(file.read())) for name, file in request.files.items()]
        return 200, f"{list(request.form.items(multi=True))} {files}"

    @websocket_rpc
    def echo(self, socket_id: str, value: Any = None) -> Any:
        return value


def masked(opcode: int, data: bytes, final: bool = True) -> bytes:
    """A client's WebSocket frame, always with the same key."""
    size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    body = bytes(each ^ KEY[at % 4] for at, each in enumerate(data))
    return bytes((opcode | 0x80 * final,)) + size + KEY + body


def lines(text: str, *bodies: bytes) -> Pieces:
    """A request's lines as pieces, and what follows them."""
    return [line.encode() + b"\r\n" for line in text.split("|")] + [b"\r\n", *bodies]


MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n', b"1\r\n",
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\nContent-Type: x/y\r\n\r\n',
    b"\0\xff" * 20 + b"\r\n", b"--b--\r\n",
)  # fmt: skip
CALL = b'{"method": "echo", "data": {"value": [1, "\xc3\xbc"]}, "correlation_id": 7}'
REQUESTS: list[Pieces] = [
    lines("GET / HTTP/1.1|Host: here:8000|User-Agent: somebody|Accept: */*|Cookie: a=1; b=2|Connection: keep-alive"),
    [
        *lines("GET /number/17?a=1&b=%C3%BC&a=2 HTTP/1.1|Host: here|X-Long: " + "x" * 200),
        *lines("HEAD / HTTP/1.1|Host: here"),
        *lines("GET /slash HTTP/1.1|Host: here:8000|Connection: close"),
    ],
    lines("POST /length HTTP/1.1|Host: here|Content-Length: 12|Content-Type: text/plain", b"twelve", b"bytes."),
    lines("POST /length HTTP/1.1|Host: here|Expect: 100-continue|Content-Length: 1500", b"x" * 1500),
    lines("PUT /length HTTP/1.1|Host: here|Transfer-Encoding: chunked", b"5\r\n", b"first\r\n", b"a;x=y\r\n",
          b"0123456789\r\n", b"0\r\n", b"X-Trailer: 1\r\n", b"\r\n"),
    lines("POST /form HTTP/1.1|Host: here|Content-Type: application/x-www-form-urlencoded|Content-Length: 12",
          b"a=1&b=%C3%BC"),
    lines("POST /form HTTP/1.1|Host: here|Content-Type: multipart/form-data; boundary=b|Content-Length: "
          f"{sum(map(len, MULTIPART))}", *MULTIPART),
    [
        *lines("GET /ws HTTP/1.1|Host: localhost|Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13"
               "|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|Origin: http://localhost"),
        masked(1, CALL), masked(9, b"ping"), masked(1, CALL[:20], final=False), masked(0, CALL[20:]),
        masked(2, CALL), masked(1, b'{"method": "echo", "data": {"value": "%s"}}' % (b"x" * 200)),
        masked(8, b"\x03\xe8"),
    ],
]  # fmt: skip
