"""Messages whose handlers fail: which come again and when, and what they keep."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet.defer import Deferred

from tests.services import OnRabbitMQ, ServicesCase, TrustsNewQueues
from txservices.amqp.entities import Queue
from txservices.events import event_handler
from txservices.exceptions import ConfigurationError, RemoteError
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.messaging import consume
from txservices.retry import Reject, Retry
from txservices.retry.marks import PREFIX
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

QUICK = Retry(attempts=3, delay=0.02, growth=2, jitter=0)
HEARD = "evt-source-type--listener.hear"
FAILED = ValueError("not yet")


class Context(DependencyProvider[WorkerContext]):
    """Injects the worker's context."""

    def get_dependency(self, worker_ctx: WorkerContext) -> WorkerContext:
        return worker_ctx


def failing(heard: Heard, *outcomes: Any, **options: Any) -> type:
    """A service whose methods tell each attempt, and raise or return these one after the other, then the last again."""
    left = list(outcomes)

    class Listener:
        name = "listener"
        version = "1.4"
        context = Context()

        def attempt(self, data: Any) -> Any:
            heard((data, self.context))
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        @event_handler("source", "type", **options)
        def hear(self, data):
            return self.attempt(data)

        @rpc(**options)
        def call(self, data):
            return self.attempt(data)

        @consume(Queue("work"), **options)
        def work(self, data):
            return self.attempt(data)

    return Listener


class RetriesCase(TrustsNewQueues, ServicesCase):
    def tearDown(self) -> None:
        self.flushLoggedErrors(ValueError, KeyError, Retry, Reject)

    async def parked(self, queue: str) -> tuple[Any, dict[str, Any]]:
        """Body and properties of the message in a parking queue, once there is one."""
        await self.connections().publisher.declare(Queue(f"{queue}.parked"))
        message = await self.stage.get_message(f"{queue}.parked", timeout=60)
        return message.payload, message.properties


class RetryTests(RetriesCase):
    """A handler that fails gets its message again, later."""

    async def test_event(self) -> None:
        """An event comes again until it is handled, with its id, body, context, exchange and routing key."""
        heard = Heard()
        await self.start(failing(heard, FAILED, FAILED, None, retry=QUICK))
        first, second, third = await self.told(heard, 3)
        self.assertEqual([context.attempt for _, context in (first, second, third)], [1, 2, 3])
        self.assertEqual([data for data, _ in (first, second, third)], [{"a": 1}] * 3)
        messages = [context.message for _, context in (first, second, third)]
        self.assertEqual([each.properties["message_id"] for each in messages], ["one"] * 3)
        self.assertEqual([each.properties["priority"] for each in messages], [3] * 3)
        self.assertEqual([(each.exchange, each.routing_key) for each in messages], [("source.events", "type")] * 3)
        for _, context in (first, second, third):
            self.assertEqual(dict(context.data), {"language": "en", "plain": 5})
            self.assertEqual(context.immediate_parent_call_id, "a.b.1")
        self.assertIsNone(first[1].first_failed)
        self.assertEqual(second[1].first_failed, third[1].first_failed)
        self.assertRegex(third[1].first_failed, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")

    async def told(self, heard: Heard, count: int) -> list[Any]:
        headers = {"nameko.language": "en", "nameko.call_id_stack": ["a.b.1"], "plain": 5}
        properties = {"message_id": "one", "priority": 3, "headers": headers, "content_type": "application/json"}
        publisher = self.connections().publisher
        await publisher.publish("source.events", "type", b'{"a": 1}', properties)
        return await heard.wait(count)

    async def test_only_its_own_queue(self) -> None:
        """Another handler of the same event, which did not fail, does not get it again."""
        heard, others = Heard(), Heard()

        class Other:
            name = "other"

            @event_handler("source", "type")
            def hear(self, data):
                others(data)

        await self.start(failing(heard, FAILED, FAILED, None, retry=QUICK), Other)
        await self.told(heard, 3)
        await self.dispatch("source", "type", "end")
        await others.wait(2)
        self.assertEqual(others.things, [{"a": 1}, "end"])

    async def test_consume(self) -> None:
        """A message of any queue comes again."""
        heard = Heard()
        await self.start(failing(heard, FAILED, None, retry=QUICK))
        await self.connections().publisher.publish("", "work", b"5", {"content_type": "application/json"})
        await heard.wait(2)
        self.assertEqual([(data, context.attempt) for data, context in heard.things], [(5, 1), (5, 2)])

    async def test_call(self) -> None:
        """A caller waits for the attempt that succeeds, and gets its result."""
        heard = Heard()
        await self.start(failing(heard, FAILED, FAILED, "result", retry=QUICK))
        cluster = await self.cluster({"language": "en"})
        self.assertEqual(await cluster.listener.call(1), "result")
        self.assertEqual([context.attempt for _, context in heard.things], [1, 2, 3])
        self.assertEqual({context.message.routing_key for _, context in heard.things}, {"listener.call"})
        self.assertEqual({context.data["language"] for _, context in heard.things}, {"en"})
        marks = [name for _, context in heard.things for name in context.data if name.startswith(PREFIX)]
        self.assertEqual(marks, [])

    async def test_requests_of_others(self) -> None:
        """A request without a deadline, as nameko's are, is tried again, and so is one that asks for no reply."""
        outcomes = [FAILED, "first", FAILED, "second"]
        heard = Heard()
        await self.start(failing(heard, *outcomes, retry=QUICK))
        replies = await self.tap("nameko-rpc", "replies")
        deadline = {"nameko.call_deadline": time.time() + 600, "nameko.call_time_left": 600.0}
        requests: list[dict[str, Any]] = [{"reply_to": "replies"}, {"headers": deadline}]
        for count, properties in enumerate(requests, 1):
            whole = {"content_type": "application/json", "correlation_id": "c", **properties}
            body = b'{"args": [1], "kwargs": {}}'
            await self.connections().publisher.publish("nameko-rpc", "listener.call", body, whole)
            await heard.wait(2 * count)
        self.assertEqual([context.attempt for _, context in heard.things], [1, 2, 1, 2])
        (reply,) = await replies.wait()
        self.assertEqual(json.loads(reply.body), {"result": "first", "error": None})

    async def test_call_fails(self) -> None:
        """After the last attempt the caller gets the error, and the request is parked."""
        heard = Heard()
        await self.start(failing(heard, FAILED, retry=QUICK))
        cluster = await self.cluster()
        error = await self.assertFailure(cluster.listener.call(1), RemoteError)
        self.assertEqual((error.exc_type, len(heard.things)), ("ValueError", 3))
        payload, properties = await self.parked("rpc-listener")
        self.assertEqual(payload, {"args": [1], "kwargs": {}})
        self.assertEqual(properties["headers"]["txservices-back-routing-key"], "listener.call")

    async def test_call_out_of_time(self) -> None:
        """No attempt is made after the caller's deadline: it gets the error as soon as that is clear."""
        heard = Heard()
        await self.start(failing(heard, FAILED, retry=Retry(delay=300)))
        cluster = await self.cluster(timeout=50)
        await self.assertFailure(cluster.listener.call(1), RemoteError)
        self.assertEqual(len(heard.things), 1)
        _, properties = await self.parked("rpc-listener")
        self.assertEqual(properties["headers"]["txservices-reason"], "deadline")

    async def test_call_ran_too_long(self) -> None:
        """Time that the method itself has taken is the caller's, too: if that is over, no attempt is made."""
        ran = Heard()

        class Listener:
            name = "listener"
            context = Context()

            @rpc(retry=QUICK)
            def call(self):
                ran(self.context.time_left())
                self.context.ends -= 60  # as if it had run for as long
                raise FAILED

        await self.start(Listener)
        cluster = await self.cluster(timeout=50)
        await self.assertFailure(cluster.listener.call(), RemoteError)
        self.assertEqual(len(ran.things), 1)
        _, properties = await self.parked("rpc-listener")
        self.assertEqual(properties["headers"]["txservices-reason"], "deadline")

    async def test_expected(self) -> None:
        """An error that the method is expected to raise goes to the caller at once."""
        heard = Heard()
        await self.start(failing(heard, FAILED, retry=QUICK, expected_exceptions=ValueError))
        cluster = await self.cluster()
        await self.assertFailure(cluster.listener.call(1), RemoteError)
        self.assertEqual(len(heard.things), 1)

    async def test_raised(self) -> None:
        """A method asks for another attempt by itself, also where there is no policy, and is counted by one."""
        heard = Heard()
        await self.start(failing(heard, Retry(after=0.02), None))
        await self.told(heard, 2)
        self.assertEqual([context.attempt for _, context in heard.things], [1, 2])

    async def test_raised_too_often(self) -> None:
        """One that asks for ever is given as many attempts as a policy without a number has."""
        heard = Heard()
        await self.start(failing(heard, Retry(after=0.001)))
        await self.told(heard, 5)
        _, properties = await self.parked(HEARD)
        self.assertEqual((len(heard.things), properties["headers"]["txservices-attempt"]), (5, 5))

    async def test_by_configuration(self) -> None:
        """The configuration gives policies to methods that have none, and to one method its own."""
        heard = Heard()
        retry = {"delay": 0.01, "jitter": 0, "attempts": 2, "listener.hear": {"attempts": 4}, "listener.work": False}
        await self.start(failing(heard, FAILED), RETRY=retry)
        await self.told(heard, 4)
        await self.parked(HEARD)
        cluster = await self.cluster()
        await self.assertFailure(cluster.listener.call(1), RemoteError)
        self.assertEqual(len(heard.things), 4 + 2)
        await self.connections().publisher.publish("", "work", b"5", {"content_type": "application/json"})
        await heard.wait(7)
        self.assertIsNone(heard.things[-1][1].first_failed)

    async def test_not_for_this_one(self) -> None:
        """``retry=False`` is for a method that has no retries where the configuration has them."""
        heard = Heard()
        await self.start(failing(heard, FAILED, retry=False), RETRY={"delay": 0.01})
        cluster = await self.cluster()
        await self.assertFailure(cluster.listener.call(1), RemoteError)
        self.assertEqual(len(heard.things), 1)

    async def test_mistakes(self) -> None:
        """A policy that can't be ends the start with one line."""
        for retry, line in (
            ({"attempts": 0}, "RETRY: attempts: 0 is no "),
            ({"on": "Nothing"}, "no exception 'Nothing'"),
        ):
            error = await self.assertFailure(
                Deferred.fromCoroutine(self.start(failing(Heard(), None), RETRY=retry)), ConfigurationError
            )
            self.assertRegex(str(error), line)


class RetriesOnRabbitMQ(OnRabbitMQ, RetryTests):
    """The same on a RabbitMQ."""
