"""Headers that a stranger sent are passed on with a handler's context. Those that can't be are left out."""

from __future__ import annotations

from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.test_any_delivery import nested
from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.options import LEFT_OUT_SHOWN, Sending
from txservices.consumers import amqp
from txservices.events import EventDispatcher, event_handler
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.wire import codec, frames
from txservices.wire.tables import LONG, OCTETS, encode_table

TRUE = b"t\x01"
# What a stranger may put beside a good header, as name and field.
ONLY_EMBEDDED = [  # RabbitMQ closes the stranger's connection for these
    (b"nan", b"d\x7f\xf8" + b"\0" * 6),
    (b"infinite", b"f\x7f\x80\0\0"),
    (b"nameko.nan", b"A" + LONG.pack(9) + b"d\x7f\xf8" + b"\0" * 6),
]
FIELDS = [
    *((b"n" * length, TRUE) for length in (248, 249, 250, 254, 255)),
    ("ø".encode() * 127, TRUE),
    (b"nameko." + b"n" * 248, TRUE),
    (b"nameko.nameko." + b"n" * 241, TRUE),
    *((name, b"T" + b"\xff" * 8) for name in (b"late", b"nameko.late", b"")),
    *((b"deep", nested(64, letter)) for letter in (b"A", b"F")),
    (b"large", b"S" + LONG.pack(130_990) + b"x" * 130_990),
    (b"nameko.call_id_stack", b"A" + LONG.pack(130_900) + (b"S" + LONG.pack(95) + b"x" * 95) * 1309),
]
PASSED = 4  # of the fields can be sent on: the name of 248 letters, those with the prefix, the stack, which is cut


def properties_of(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Properties of a JSON message with these headers, and a good one."""
    table = b"".join(OCTETS[len(name)] + name + field for name, field in [*fields, (b"nameko.good", b"I\0\0\0\x05")])
    return b"\xa0\x00\x10application/json" + LONG.pack(len(table)) + table


class PassedOnEmbeddedTests(ServicesCase):
    """A handler that dispatches, publishes and calls."""

    fields = [*ONLY_EMBEDDED, *FIELDS]

    async def test_goes_through(self) -> None:
        """Its event and its call go through with all that can be sent on, and the log has one line for each."""
        finished, lines = Heard(), Heard()

        def observe(event: dict[str, Any]) -> None:
            text = formatEvent(event)
            if "can't be sent on" in text:
                lines(text)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        class Relay:
            name = "relay"
            dispatch = EventDispatcher()
            echo = RpcProxy("echo")

            @event_handler("strangers", "told")
            async def told(self, value: Any) -> None:
                try:
                    await self.dispatch("passed", value)
                    finished(await self.echo.echo(value))
                except Exception as error:
                    finished(error)

        class Echo:
            name = "echo"

            @rpc
            def echo(self, value: Any) -> Any:
                return value

        relay, _ = await self.start(Relay, Echo)
        protocol = amqp(relay).publisher.connection.protocol
        events = await self.tap("relay.events")
        channel = await (await self.connections().publisher.connection.when_connected()).open_channel()
        payload = codec.encode_method("basic.publish", exchange="strangers.events", routing_key="told")
        rounds = [[field] for field in self.fields] + [self.fields[:-2]]
        for number, fields in enumerate(rounds, 1):
            channel.client.write(frames.content_frames(channel.id, payload, properties_of(fields), b"%d" % number))
            self.assertEqual((await finished.wait(number))[-1], number)
            message = (await events.wait(number))[-1]
            self.assertEqual(message.headers["nameko.good"], 5)
        self.assertEqual(len(lines.things), 2 * (len(rounds) - PASSED))
        self.assertIn("is not finite" if self.fields is not FIELDS else "a short string", lines.things[0])
        self.assertLess(max(map(len, lines.things)), 200 + 2 * LEFT_OUT_SHOWN)
        for name in ("nameko." + "n" * 248, "nameko.nameko." + "n" * 241):
            self.assertIn(name, message.headers)
        self.assertIs(amqp(relay).publisher.connection.protocol, protocol)


class PassedOnRabbitTests(OnRabbitMQ, PassedOnEmbeddedTests):
    """The same on RabbitMQ."""

    fields = FIELDS


class LightenTests(SynchronousTestCase):
    """What is left out, and what is the author's own mistake."""

    def lightened(self, context: dict[str, Any], most: int = 100_000, **options: Any) -> dict[str, Any]:
        sending = Sending().merged(options)
        properties: dict[str, Any] = {"headers": {**sending.headers, **context}}
        sending.lighten(properties, most, ValueError("refused"))
        headers: dict[str, Any] = properties["headers"]
        return headers

    def test_smallest_first(self) -> None:
        """As many as a frame takes, the small ones first."""
        context = {"large": "x" * 1000, **{f"small {number}": "x" * 10 for number in range(5)}}
        self.assertEqual(self.lightened(context, 500), {f"small {number}": "x" * 10 for number in range(5)})
        some = self.lightened(context, len(encode_table({"small 1": "x" * 10})) * 3 + 20)
        self.assertEqual(len(some), 3)
        self.assertEqual(self.lightened(context, 0), {})

    def test_own_headers(self) -> None:
        """The publisher's own headers stay, and what can't be sent of them is its error."""
        own = {"own": "x" * 1000, "compression": "application/x-gzip"}
        self.assertEqual(self.lightened({"n" * 256: 1}, headers=own), own)
        for mistake in ({"own": float("nan")}, {"own" * 100: 1}, {"own": object()}):
            self.assertRaises(ValueError, self.lightened, {"n" * 256: 1}, headers=mistake)

    def test_no_stranger(self) -> None:
        """What can come in no message is the author's, in the context as well; and so is any other refusal."""
        for context in ({"thing": object()}, {"thing": {1}}, {"good": 1}, {}):
            error = self.assertRaises(ValueError, self.lightened, context)
            self.assertEqual(str(error), "refused")
