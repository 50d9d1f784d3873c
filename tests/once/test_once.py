"""Messages that come twice, to handlers with ``once=``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, ServicesCase, TrustsNewQueues, consuming
from txservices import Exchange, Publisher, Queue, Retry, consume, event_handler
from txservices.exceptions import AlreadyHandled, ConfigurationError
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.once import OnceStore
from txservices.testing.waiting import Heard

FAILED = ValueError("not yet")
EXCHANGES = {"hear": ("source.events", "type"), "work": ("", "once-work")}


class Marks(OnceStore):
    """A store in memory, whose marks are undone if the worker fails, as a transaction's are."""

    kept: set[tuple[str, str]]

    def setup(self) -> None:
        self.kept = set()
        self.of_worker: dict[WorkerContext, tuple[str, str]] = {}

    def seen(self, worker_ctx: WorkerContext, message_id: str) -> bool:
        return (worker_ctx.entrypoint.method_name, message_id) in self.kept

    def mark(self, worker_ctx: WorkerContext, message_id: str) -> Any:
        key = self.of_worker[worker_ctx] = (worker_ctx.entrypoint.method_name, message_id)
        if key in self.kept:
            raise AlreadyHandled(message_id)
        self.kept.add(key)
        return Deferred.fromCoroutine(self.later())

    async def later(self) -> None:
        """A mark may take a while."""

    def worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: Any = None) -> None:
        key = self.of_worker.pop(worker_ctx, None)
        if exc_info is not None and key is not None:
            self.kept.discard(key)


class Seen(DependencyProvider):
    """Tells what dependencies see of each worker."""

    heard = Heard()

    def worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: Any = None) -> None:
        self.heard(exc_info and type(exc_info[1]).__name__)


def listener(heard: Heard, *outcomes: Any, once: bool | str = True, **options: Any) -> type:
    """A service whose methods tell each message, and raise or return these one after the other, then the last again."""
    left = list(outcomes)

    class Listener:
        name = "listener"
        marks = Marks()

        def attempt(self, data: Any) -> Any:
            heard(data)
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        @event_handler("source", "type", once=once, **options)
        def hear(self, data):
            return self.attempt(data)

        @consume(Queue("once-work"), once=once, **options)
        def work(self, data):
            return self.attempt(data)

    return Listener


class OnceTests(TrustsNewQueues, ServicesCase):
    """Both kinds of memory, events and other messages."""

    MEMORIES: tuple[bool | str, ...] = (True, "marks")

    def tearDown(self) -> None:
        self.flushLoggedErrors(ValueError)

    async def publish(self, method: str, body: bytes, message_id: str | None = "one") -> None:
        exchange, key = EXCHANGES[method]
        properties: dict[str, Any] = {"content_type": "application/json", "headers": {}}
        if message_id is not None:
            properties["message_id"] = message_id
        await self.publisher.publish(exchange, key, body, properties, mandatory=True)

    async def listening(self, heard: Heard, *outcomes: Any, **options: Any) -> Any:
        (container,) = await self.start(listener(heard, *outcomes, **options))
        self.publisher = self.connections().publisher
        return container

    async def end(self, container: Any) -> None:
        await container.stop()

    async def assert_empty(self, container: Any) -> None:
        """When the service has stopped, its queues are empty: all that came is acked."""
        await container.stop()
        for queue in ("evt-source-type--listener.hear", "once-work"):
            message = Heard()
            await self.connections().consume(Queue(queue), message, 10).ready
            await self.publisher.publish("", queue, b"last", {}, mandatory=True)
            (first,) = await message.wait()
            self.assertEqual(first.body, b"last", queue)

    async def test_resent(self) -> None:
        """A message that was handled is acked and not run; others are, also one without an id, each time."""
        for once in self.MEMORIES:
            for method in EXCHANGES:
                heard = Heard()
                container = await self.listening(heard, None, once=once)
                for body, message_id in ((b"1", "one"), (b"2", "one"), (b"3", "two"), (b"4", "one")):
                    await self.publish(method, body, message_id)
                for body in (b"5", b"6"):
                    await self.publish(method, body, "")
                self.assertEqual(sorted(await heard.wait(4)), [1, 3, 5, 6], (once, method))
                await container.stop()
                self.assertEqual(sorted(heard.things), [1, 3, 5, 6], (once, method))
        await self.assert_empty(container)

    async def test_each_handler(self) -> None:
        """Two handlers of one message each run it: what one has handled says nothing about the other."""
        for once in self.MEMORIES:
            heard = Heard()
            container = await self.listening(heard, None, once=once)
            for method in EXCHANGES:
                await self.publish(method, b"1")
            self.assertEqual(await heard.wait(2), [1, 1])
            await container.stop()

    async def test_failed(self) -> None:
        """A message that failed is not handled: the next one with its id runs, and the third does not."""
        for once in self.MEMORIES:
            heard = Heard()
            container = await self.listening(heard, FAILED, None, once=once)
            for number, body in enumerate((b"1", b"2"), 1):
                await self.publish("hear", body)
                await heard.wait(number)
            for body, message_id in ((b"3", "one"), (b"4", "two")):
                await self.publish("hear", body, message_id)
            self.assertEqual(await heard.wait(3), [1, 2, 4])
            await container.stop()

    async def test_retried(self) -> None:
        """Further attempts run, although they have the id of the one that failed; a duplicate of them doesn't."""
        for once in self.MEMORIES:
            heard = Heard()
            policy = Retry(attempts=3, delay=0.02, growth=1)
            container = await self.listening(heard, FAILED, FAILED, None, once=once, retry=policy)
            await self.publish("hear", b"1")
            self.assertEqual(await heard.wait(3), [1, 1, 1])
            for body, message_id in ((b"2", "one"), (b"3", "two")):
                await self.publish("hear", body, message_id)
            self.assertEqual(await heard.wait(4), [1, 1, 1, 3])
            await container.stop()

    async def test_requeued(self) -> None:
        """One that goes back to its queue because it failed runs again."""
        for once in self.MEMORIES:
            heard = Heard()
            container = await self.listening(heard, FAILED, None, once=once, requeue_on_error=True)
            for body, message_id in ((b"1", "one"), (b"2", "two")):
                await self.publish("hear", body, message_id)
            self.assertEqual(sorted(await heard.wait(3)), [1, 1, 2])
            await self.publish("hear", b"3")
            await self.publish("hear", b"4", "three")
            self.assertEqual((await heard.wait(4))[-1], 4)
            await container.stop()

    async def test_side_by_side(self) -> None:
        """A duplicate does not run beside the first: it is acked after that, or runs if the first has failed."""
        for once in self.MEMORIES:
            for error in (None, FAILED):
                heard, answer = Heard(), Deferred[None]()
                container = await self.listening(heard, answer, None, once=once)
                for body, message_id in ((b"1", "one"), (b"2", "one"), (b"3", "two")):
                    await self.publish("hear", body, message_id)
                self.assertEqual(await heard.wait(2), [1, 3])
                answer.callback(None) if error is None else answer.errback(error)
                if error is not None:
                    self.assertEqual(await heard.wait(3), [1, 3, 2])
                await container.stop()
                self.assertEqual(heard.things, [1, 3] if error is None else [1, 3, 2])
        await self.assert_empty(container)

    async def test_redelivered(self) -> None:
        """A message that comes again because the connection was lost while it ran is not run again."""
        for once in self.MEMORIES:
            heard, answer = Heard(), Deferred[None]()
            container = await self.listening(heard, answer, None, once=once)
            again = self.logged("waits for the one with its id, which runs now")
            await self.publish("hear", b"1")
            await heard.wait()
            consuming(container).protocol.abort()
            await again.wait()
            answer.callback(None)
            await self.publish("hear", b"2", "two")
            self.assertEqual(await heard.wait(2), [1, 2])
            await container.stop()

    async def test_dependencies(self) -> None:
        """They see that a message was handled before, as an error, so that they commit nothing."""
        heard, results = Heard(), Heard()
        service = listener(heard, None, once="marks", requeue_on_error=True)
        service.seen = Seen()
        self.patch(Seen, "heard", results)
        (container,) = await self.start(service)
        self.publisher = self.connections().publisher
        for body in (b"1", b"2"):
            await self.publish("hear", body)
            await results.wait(int(body))
        self.assertEqual((results.things, heard.things), ([None, "AlreadyHandled"], [1]))
        await self.assert_empty(container)

    async def test_lost_publish(self) -> None:
        """If what a handler has published is refused for good, its message was not handled: the next one runs."""
        heard = Heard()

        class Listener:
            name = "listener"
            publish = Publisher(exchange=Exchange("once-nowhere"), mandatory=True)

            @event_handler("source", "type", once=True)
            def hear(self, data):
                heard(data)
                self.publish(1)

        await self.start(Listener)
        self.publisher = self.connections().publisher
        rejected = self.logged("rejected: what its handler published was refused")
        for number in (1, 2):
            await self.publish("hear", b"1")
            await rejected.wait(number)
        self.assertEqual(heard.things, [1, 1])

    async def test_wrong(self) -> None:
        """A name that is no store's is a mistake at the start, which says what to write."""
        for once in ("nobody", "name", "hear"):
            with self.assertRaises(ConfigurationError) as caught:
                await self.start(listener(Heard(), None, once=once))
            self.assertIn("names no OnceStore of Listener: write True, or the name", str(caught.exception))


class OnceOnRabbitMQ(OnRabbitMQ, OnceTests):
    """The same on RabbitMQ."""
