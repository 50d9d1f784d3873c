"""Messages in delay take no memory of the process that delayed them: RabbitMQ has them."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tests.services import OnRabbitMQ, ServicesCase, TrustsNewQueues
from txservices import workers
from txservices.amqp.publisher import Publisher
from txservices.consumers import amqp
from txservices.events import event_handler
from txservices.observers import Observer, observers
from txservices.retry import Retry, failures, marks
from txservices.standalone.events import event_dispatcher

SENT = 2_000  # messages
FAILED = 500  # messages; each has a traceback, which takes its time
AT_ONCE = 100  # messages; Python's dicts stay as long as they were with the most entries
HELD_MAX = 100  # bytes for each message; its id in a set takes more
DATA = "x" * 1000
HOUR = 3600


class Counting(Observer):
    """Counts the messages that are delayed."""

    def after(self, count: int) -> Deferred[None]:
        """Fires when so many more are."""
        self.left = count
        self.all: Deferred[None] = Deferred()
        return self.all

    def message_retried(self, *arguments: Any) -> None:
        self.left -= 1
        if not self.left:
            reactor.callLater(0, self.all.callback, None)  # the message is acked after this


class NothingHeldTests(OnRabbitMQ, TrustsNewQueues, ServicesCase):
    """After their confirms, the process holds nothing for each of its messages."""

    async def begin(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.before = await self.held()

    async def held(self) -> int:
        await deferLater(reactor, 0)  # the functions that have told of the last confirm have ended then
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def nothing_held(self, count: int, publisher: Publisher) -> None:
        grown = await self.held() - self.before
        self.assertLess(grown, count * HELD_MAX)
        self.assertEqual((publisher.unconfirmed, publisher.unconfirmed_bytes), ({}, 0))

    async def test_sent(self) -> None:
        """A program sends events with a delay."""
        async with event_dispatcher(self.config) as dispatch:

            async def send(count: int) -> None:
                for _ in range(count // AT_ONCE):
                    await gatherResults([dispatch("source", "type", DATA, delay=HOUR) for _ in range(AT_ONCE)])

            await send(AT_ONCE)
            await self.begin()
            await send(SENT)
            await self.nothing_held(SENT, dispatch.connections.publisher)

    async def test_failed(self) -> None:
        """A service delays the events with which it failed."""
        counting = Counting({})
        observers.add(counting)
        self.addCleanup(observers.remove, counting)
        for module in (failures, workers):  # a worker of trial -j keeps what is logged
            self.patch(module, "log", Logger(observer=lambda event: None))
        self.patch(marks, "now", lambda: "2026-01-01")  # Python keeps some bytes of many a time that it has written

        class Listener:
            name = "listener"

            @event_handler("source", "type")
            def hear(self, data: Any) -> None:
                raise Retry(after=HOUR)

        (container,) = await self.start(Listener)
        async with event_dispatcher(self.config) as dispatch:

            async def fail(count: int) -> None:
                for _ in range(count // AT_ONCE):
                    retried = counting.after(AT_ONCE)
                    await gatherResults([dispatch("source", "type", DATA) for _ in range(AT_ONCE)])
                    await retried

            await fail(AT_ONCE)
            await self.begin()
            await fail(FAILED)
            await self.nothing_held(FAILED, amqp(container).publisher)
