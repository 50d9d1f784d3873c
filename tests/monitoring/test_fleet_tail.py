"""A process of the fleet tells what happens in it, as long as somebody asks, and costs nothing otherwise."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.monitoring.test_fleet import FleetCase, Shop, Stock
from txservices.consumers import amqp
from txservices.exceptions import RemoteError
from txservices.monitoring import failures
from txservices.monitoring.answering import Answering
from txservices.monitoring.answers import Happened, Tailed
from txservices.observers import observers
from txservices.wire import codec, frames
from txservices.wire.spec import FRAME_METHOD


class Telling(FleetCase):
    """Calls and events are told while they happen."""

    async def test_tail(self) -> None:
        """Workers, calls and events are told to whoever asks, and nothing after that."""
        await self.run_process(Stock)
        await self.run_process(Shop)
        greeted: Deferred[None] = Deferred()
        told: Deferred[None] = Deferred()
        happened: list[Happened] = []

        def tell(tailed: Tailed) -> None:
            happened.extend(tailed["happened"])
            if not greeted.called and len(tailing.processes) == 2:
                greeted.callback(None)
            if not told.called and len(happened) == 5:
                told.callback(None)

        tailing = self.fleet.tail(tell)
        await greeted
        cluster = await self.cluster()
        await cluster.shop.sell("tea")
        await self.assertFailure(cluster.stock.fail("tea", "4711"), RemoteError)
        self.flushLoggedErrors(ValueError)
        await told
        tailing.stop()
        seen = sorted((each["kind"], each["service"], each["name"], each["outcome"]) for each in happened)
        self.assertEqual(
            seen,
            [
                ("call", "shop", "stock.take", "ok"),
                ("event", "shop", "sold", "ok"),
                ("worker", "shop", "sell", "ok"),
                ("worker", "stock", "fail", "error"),
                ("worker", "stock", "take", "ok"),
            ],
        )
        (failed,) = [each for each in happened if each["error"]]
        self.assertEqual(failed["error"], "ValueError: no tea \x1b <script>")
        for process in self.processes:
            (lease,) = process.happening.leases.values()
            lease.until = 0
            process.happening.sending.reset(0)
        await self.cluster()  # turns of the reactor
        for process in self.processes:
            self.assertEqual(process.happening.leases, {})
            self.assertNotIn(process.happening, observers.all)

    async def test_some(self) -> None:
        """Only a service, a method or a type of event is told, if that is wanted."""
        stock = await self.run_process(Stock)
        cluster = await self.cluster()
        for service, method, expected in (("stock", "take", 1), ("stock", "", 2), ("", "fail", 1), ("shop", "", 0)):
            lease = {"service": service, "method": method, "seconds": 5.0, "rate": 10.0}
            stock.happening.lease("queue", "1", lease)
            await cluster.stock.take("tea")
            await self.assertFailure(cluster.stock.fail("tea", "4711"), RemoteError)
            self.assertEqual(len(stock.happening.leases["1"].happened), expected, (service, method))
            stock.happening.stop()
        self.flushLoggedErrors(ValueError)

    async def test_too_many(self) -> None:
        """Calls and events beyond the rate are not told one by one: only their number is."""
        stock = await self.run_process(Stock)
        cluster = await self.cluster()
        sent: list[Any] = []
        self.patch(stock.happening, "send", lambda *args: sent.append(args))
        stock.happening.lease("queue", "1", {"service": "", "method": "", "seconds": 60.0, "rate": 3.0})
        for _ in range(10):
            await cluster.stock.take("tea")
        stock.happening.sending.cancel()
        stock.happening.send_all()
        self.assertEqual(sum(len(happened) for _, _, happened, _ in sent), 3)
        self.assertEqual(sum(dropped for *_, dropped in sent), 7)

    async def test_as_many_as_may_ask(self) -> None:
        """A process tells some askers at once, and no more: its log says so once, and again when one had left."""
        happening = (await self.run_process(Stock)).happening
        with capturedLogs() as events:
            for number in range(30):
                happening.lease("queue", str(number), {"service": "", "method": "", "seconds": 60.0, "rate": 3.0})
            self.assertEqual((len(happening.leases), refusals_in(events)), (10, 1))
            happening.leases["0"].until = 0
            happening.sending.cancel()
            happening.send_all()
            for number in range(30, 33):
                happening.lease("queue", str(number), {"service": "", "method": "", "seconds": 60.0, "rate": 3.0})
            self.assertEqual((len(happening.leases), refusals_in(events)), (10, 2))


def refusals_in(events: list[LogEvent]) -> int:
    """How often was told that further askers are told nothing."""
    return sum("ask already what happens here" in formatEvent(each) for each in events)


class Being(FleetCase):
    """A process of a fleet, before and after."""

    async def test_nothing_unless_asked(self) -> None:
        """A process publishes nothing to the fleet while nobody asks."""
        heard = await self.stage.tap(self.fleet.exchange)
        stock = await self.run_process(Stock)
        cluster = await self.cluster()
        for _ in range(3):
            await cluster.stock.take("tea")
        self.assertEqual(heard.things, [])
        self.assertEqual(stock.channel.published, 0)

    async def test_stops(self) -> None:
        """A process that has stopped observes nothing, and has nothing to do later."""
        stock = await self.run_process(Stock)
        await self.ask("counts")
        stock.happening.lease("queue", "1", {"service": "", "method": "", "seconds": 60.0, "rate": 3.0})
        await self.stage.stop()
        self.assertEqual(observers.all, [])
        self.assertEqual(observers.containers, [])

    async def test_reconnects(self) -> None:
        """After a lost connection it can be asked again."""
        stock = await self.run_process(Stock)
        lost = stock.connection.protocol.disconnected.wait()
        stock.connection.protocol.abort()
        await lost
        await stock.connection.when_connected()
        await stock.opening
        self.assertEqual((await self.answer_of(stock))["process"]["id"], stock.id)

    async def test_closed_by_the_broker(self) -> None:
        """After a close of the broker's likewise, and the log does not say that it does without the fleet."""
        stock = await self.run_process(Stock)
        protocol = stock.connection.protocol
        close = codec.encode_method("connection.close", reply_code=320, reply_text="CONNECTION_FORCED - bye")
        with capturedLogs() as logged:
            protocol.dataReceived(frames.frame(FRAME_METHOD, 0, close))
            await protocol.disconnected.wait()
            await stock.connection.when_connected()
            await stock.opening
        self.assertEqual([event for event in logged if "does without" in event["log_format"]], [])
        self.assertEqual((await self.answer_of(stock))["process"]["id"], stock.id)

    async def test_queue_deleted(self) -> None:
        """If somebody deletes its queue it has another."""
        stock = await self.run_process(Stock)
        channel = stock.channel
        channel.on_cancelled(f"fleet {stock.id}")
        await stock.opening
        self.assertIsNot(stock.channel, channel)
        self.assertEqual((await self.answer_of(stock))["process"]["id"], stock.id)

    async def test_off(self) -> None:
        """With ``FLEET: false`` a process does not answer."""
        (container,) = await self.start(Stock)
        self.assertEqual([each for each in amqp(container) if isinstance(each, Answering)], [])

    async def test_too_long(self) -> None:
        """An answer that is too long leaves out the oldest failures, and says so."""
        stock = await self.run_process(Stock)
        for number in range(100):
            stock.failures.kept.append(
                {
                    "number": number,
                    "at": time.time(),
                    "service": "stock",
                    "method": "fail",
                    "entrypoint": "Rpc",
                    "outcome": "error",
                    "seconds": 0.0,
                    "error": "ValueError",
                    "text": "é" * failures.ERROR_TEXT_MAX,
                    "traceback": "",
                    "arguments": {},
                    "call_id_stack": [],
                }
            )
        told = await self.answer_of(stock, "failures")
        self.assertEqual(told["left_out"], ["failures"])
        self.assertEqual([each["number"] for each in told["failures"]], list(range(99, 99 - 25, -1)))
