"""Handlers that take too long: for the reactor, and for the broker. Numbers are the faults'."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests import processes, rabbitmq
from tests.faults.load import LoadCase
from tests.faults.scene import FaultsCase, until
from txservices.amqp.unacked import LOOKS
from txservices.events import event_handler
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard

HEARTBEAT = 1  # seconds
HELD = 4 * HEARTBEAT  # seconds; RabbitMQ gives up after two intervals without a byte, and looks each half of one
HOLDS = """
import os
import time
from txservices.events import event_handler

class Worker:
    name = "worker"

    @event_handler("source", "told")
    def held(self, number):
        print("held", number, flush=True)
        if not os.path.exists("held before"):
            open("held before", "w").close()
            time.sleep({held})
        print("held to its end", number, flush=True)

    @event_handler("source", "asked", blocking=True)
    def in_thread(self, number):
        time.sleep({held})
        print("waited in a thread", number, flush=True)
"""
CONSUMER_TIMEOUT = 2  # seconds


class Blocking(LoadCase):
    """The reactor is held for longer than the heartbeat allows."""

    async def worker(self) -> processes.Process:
        self.write(HOLDS.format(held=HELD))
        config = processes.config_file(self, **self.direct, HEARTBEAT=HEARTBEAT)
        worker = processes.txservices(
            self, "run", "--config", config, "app", cwd=self.folder, PYTHONPATH=processes.ROOT
        )
        await worker.line("^running: ")
        dispatch = event_dispatcher(self.direct)
        self.addCleanup(dispatch.stop)
        self.dispatch = dispatch
        return worker

    async def test_row_25_the_reactor_is_held(self) -> None:
        """It is said by whom, with the stack and what to do; the broker gives the connection up, the service is back on
        another one, and the event is handled again, for its ack was lost."""
        worker = await self.worker()
        await self.dispatch("source", "told", 1)
        await worker.line(r"the reactor has been held for \d\.\d s by worker\.held: .*blocking = True")
        await worker.line(r"line \d+, in held\n\s+time\.sleep")
        await worker.line("no connection to the broker")
        await worker.line(r"(?s)held to its end 1\n.*held to its end 1\n")
        await self.dispatch("source", "told", 2)
        await worker.line("held to its end 2")
        self.assertEqual(await worker.end(), 0)
        self.assertEqual(worker.stdout.count("held 1\n"), 2)

    async def test_row_25_a_thread_holds_nothing(self) -> None:
        """The same work in a thread: nothing is said, and no connection is lost."""
        worker = await self.worker()
        await self.dispatch("source", "asked", 1)
        await worker.line("waited in a thread 1")
        self.assertNotRegex(worker.stdout + worker.stderr, "held for|no connection")
        self.assertEqual(await worker.end(), 0)
        self.assertEqual((await self.depth("evt-source-asked--worker.in_thread"))[0], 0)


class Slow(FaultsCase):
    """A handler takes longer than the broker waits for its ack."""

    timeout = 100

    def node(self) -> rabbitmq.Node:
        return rabbitmq.mortal()

    async def limit(self, consumer_timeout: int, tick: int) -> None:
        """Milliseconds that the broker waits, and after which it looks again."""
        setting = "application:set_env(rabbit, {}, {})"
        values = {"consumer_timeout": consumer_timeout, "channel_tick_interval": tick}
        await self.broker.ctl("eval", ", ".join(setting.format(*each) for each in values.items()) + ".")

    async def test_row_26_longer_than_the_consumer_timeout(self) -> None:
        """It is warned of before; the channel that the broker closes is made again, others' events are handled, and the
        event comes again, once, flagged."""
        await self.limit(CONSUMER_TIMEOUT * 1000, 500)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.limit(1_800_000, 60_000)))
        begun, finish = Heard(), Deferred[Any]()

        class Listener:
            name = "listener"

            @event_handler("teller", "told")
            async def told(self, value: str) -> None:
                begun(value)
                if begun.things.count("slow") == 1 and value == "slow":
                    await finish

        (container,) = await self.start(Listener, CONSUMER_TIMEOUT=CONSUMER_TIMEOUT)
        warned = self.logged(f"listener.told has not been acknowledged for {0.8 * CONSUMER_TIMEOUT:.1f} s")
        closed = self.logged("the channel that consumes .* is closed")
        lost = self.logged("no connection to the broker")
        dispatch = event_dispatcher(self.direct)
        self.addCleanup(dispatch.stop)
        began = reactor.seconds()
        await dispatch("teller", "told", "slow")
        await warned.wait()
        self.in_time(began, CONSUMER_TIMEOUT * (1 - 1 / LOOKS) + 0.3)
        self.assertEqual(closed.things, [])
        await closed.wait()
        self.assertIn("PRECONDITION_FAILED - delivery acknowledgement on channel", closed.things[0])
        await begun.wait(2)
        await dispatch("teller", "told", "other")
        await begun.wait(3)
        finish.callback(None)  # too late
        self.assertEqual(begun.things, ["slow", "slow", "other"])
        await until(lambda: not container.entrypoints[0].consumer.unsettled)
        await container.stop()
        self.assertEqual((len(warned.things), len(closed.things), lost.things), (1, 1, []))
        self.assertEqual((await self.depth("evt-teller-told--listener.told"))[0], 0)
