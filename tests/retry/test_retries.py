"""Messages whose handlers fail: which come again and when, what they keep, and what ends in the parking queue."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent, globalLogPublisher

from tests.services import OnRabbitMQ, ServicesCase
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.ondemand import OnDemand
from txservices.command import logs
from txservices.events import BROADCAST, event_handler
from txservices.exceptions import ConfigurationError, MalformedRequest, RemoteError
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.messaging import consume
from txservices.retry import Reject, Retry
from txservices.retry.failures import parking_queue
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


class RetriesCase(ServicesCase):
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


class ParkTests(RetriesCase):
    """What is not tried again is kept, with the reasons."""

    async def fail(self, *outcomes: Any, body: bytes = b'{"a": 1}', **options: Any) -> Heard:
        heard = Heard()
        config = {name: options.pop(name) for name in ("on_parked", "RETRY") if name in options}
        await self.start(failing(heard, *outcomes, **options), **config)
        properties = {"message_id": "one", "headers": {"plain": 5}, "content_type": "application/json"}
        await self.connections().publisher.publish("source.events", "type", body, properties)
        return heard

    async def test_after_the_last(self) -> None:
        """After the last attempt the message is parked, with everything that says why."""
        await self.fail(FAILED, retry=QUICK)
        payload, properties = await self.parked(HEARD)
        headers = properties["headers"]
        self.assertEqual((payload, properties["message_id"], headers["plain"]), ({"a": 1}, "one", 5))
        said = {name.removeprefix("txservices-"): value for name, value in headers.items() if "txservices-" in name}
        for name in ("first-failed", "last-failed"):
            self.assertRegex(said.pop(name), r"^\d{4}-\d\d-\d\dT")
        self.assertIn("in attempt\n", said.pop("traceback"))
        self.assertRegex(said.pop("version"), r"^1\.4, txservices \d")
        self.assertTrue(said.pop("host"))
        self.assertEqual(
            said,
            {
                "attempt": 3,
                "reason": "failed",
                "error-class": "builtins.ValueError",
                "error": "not yet",
                "service": "listener",
                "method": "hear",
                "queue": HEARD,
                "exchange": "source.events",
                "routing-key": "type",
                "back-exchange": "",
                "back-routing-key": HEARD,
            },
        )

    async def test_rejected(self) -> None:
        """A method that raises ``Reject`` has its message parked at once, also where there is no policy."""
        heard = await self.fail(Reject("no such order"))
        _, properties = await self.parked(HEARD)
        headers = properties["headers"]
        self.assertEqual((headers["txservices-reason"], headers["txservices-error"]), ("rejected", "no such order"))
        self.assertEqual(len(heard.things), 1)

    async def test_persistent(self) -> None:
        """A parked message survives a restart of the broker, also if it was not sent to."""
        await self.start(failing(Heard(), FAILED, retry=Retry(attempts=1)))
        await self.connections().publisher.publish("", "work", b"5", {"delivery_mode": 1})
        _, properties = await self.parked("work")
        self.assertEqual(properties["delivery_mode"], 2)

    async def test_given_up_on(self) -> None:
        """An error that the policy gives up on parks the message at once."""
        heard = await self.fail(KeyError("a"), retry=Retry(give_up_on=LookupError))
        await self.parked(HEARD)
        self.assertEqual(len(heard.things), 1)

    async def test_unreadable(self) -> None:
        """A body that can't be read is parked as it is."""
        heard = await self.fail(None, body=b'"x"', retry=QUICK)
        await heard.wait()
        properties = {"content_type": "application/x-unknown", "message_id": "two"}
        await self.connections().publisher.publish("source.events", "type", b"\xff{", properties)
        connections, parked = self.connections(), Heard()
        await connections.consume(Queue(f"{HEARD}.parked"), parked, 0).ready
        (message,) = await parked.wait()
        self.assertEqual((message.body, message.headers["txservices-reason"]), (b"\xff{", "unreadable"))
        self.assertEqual(len(heard.things), 1)

    async def test_unreadable_requests(self) -> None:
        """A request that can't be read is parked, too, and its caller has the error, if there is one who waits."""
        heard = Heard()
        await self.start(failing(heard, None, retry=QUICK))
        cluster = await self.process(serializer="yaml", ACCEPT=["yaml", "json"]).cluster()
        error = await self.assertFailure(cluster.listener.call(1), MalformedRequest)
        self.assertIn("content type 'application/x-yaml' is not accepted here", str(error))
        properties = {"content_type": "application/json", "message_id": "nobody waits"}
        await self.connections().publisher.publish("nameko-rpc", "listener.call", b"{", properties)
        connections, parked = self.connections(), Heard()
        await connections.consume(Queue("rpc-listener.parked"), parked, 0).ready
        messages = await parked.wait(2)
        self.assertEqual({message.headers["txservices-reason"] for message in messages}, {"unreadable"})
        self.assertEqual((messages[1].body, messages[1].properties["message_id"]), (b"{", "nobody waits"))
        self.assertEqual(heard.things, [])

    async def test_one_line(self) -> None:
        """An intended ``Reject`` or ``Retry`` is a line of the log, without a traceback."""
        with capturedLogs() as events:
            logged = self.logged("is parked in")
            await self.fail(Retry(after=0.01), Reject("no such order"))
            await logged.wait()
        told = [formatEvent(event) for event in events if event["log_level"] >= LogLevel.warn]
        self.assertEqual(len(told), 2, told)
        self.assertRegex(
            told[0],
            r"hear: <Message .*> has failed in attempt 1, and comes again in 0.01 s: it asks for another attempt in",
        )
        self.assertRegex(told[1], r"hear: <Message .*> is parked in .* after attempt 2 \(rejected\): no such order$")
        self.assertEqual([event for event in events if "log_failure" in event], [])

    async def test_expected(self) -> None:
        """A ``Reject`` that a method is expected to raise goes to its caller, and its request is not parked."""
        await self.start(failing(Heard(), Reject("no"), expected_exceptions=Reject))
        with capturedLogs() as events:
            cluster = await self.cluster()
            await self.assertFailure(cluster.listener.call(1), RemoteError)
        self.assertEqual([event for event in events if "is parked" in (formatEvent(event) or "")], [])

    async def test_broadcast(self) -> None:
        """Messages of a broadcast's queue, which has another name at each start, are parked under one name."""

        class Listener:
            name = "listener"

            @event_handler("source", "type", handler_type=BROADCAST, reliable_delivery=False, retry=QUICK)
            def hear(self, data):
                raise FAILED

        await self.start(Listener)
        await self.dispatch("source", "type", 1)
        payload, properties = await self.parked(HEARD)
        self.assertEqual((payload, properties["headers"]["txservices-attempt"]), (1, 3))
        self.assertRegex(properties["headers"]["txservices-queue"], rf"^{HEARD}-[0-9a-f]{{32}}$")

    async def test_nameless_queue(self) -> None:
        """Messages of a queue whose name the broker has made up are parked in a queue with the method's name."""

        class Listener:
            name = "listener"

            @consume(Queue("", Exchange("all", type="fanout"), exclusive=True), retry=QUICK)
            def anonymous(self, data):
                raise FAILED

        logged = self.logged("is parked in listener.anonymous.parked after attempt 3")
        await self.start(Listener)
        await self.connections().publisher.publish("all", "key", b"1", {"content_type": "application/json"})
        body, properties = await self.parked("listener.anonymous")
        self.assertEqual((body, properties["headers"]["txservices-exchange"]), (1, "all"))
        await logged.wait()

    async def test_long_names(self) -> None:
        """A queue whose name has no room for more has a parking queue with a hash in its name."""
        name, heard = "ü" * 127, Heard()

        class Listener:
            name = "listener"

            @consume(Queue("ü" * 127), retry=Retry(attempts=2, delay=0.01))
            def hear(self, data):
                heard(data)
                raise FAILED

        await self.start(Listener)
        await self.connections().publisher.publish("", name, b"1", {"content_type": "application/json"})
        await heard.wait(2)
        queue = parking_queue(name).name
        self.assertLessEqual(len(queue.encode()), 255)
        payload, properties = await self.parked(queue.removesuffix(".parked"))
        self.assertEqual((payload, properties["headers"]["txservices-queue"]), (1, name))

    async def test_no_such_method(self) -> None:
        """A policy for a method that the service does not have is a mistake; another service's may be there."""
        await self.start(failing(Heard(), None), RETRY={"other.hear": {"attempts": 2}})
        error = await self.assertFailure(
            Deferred.fromCoroutine(self.start(failing(Heard(), None), RETRY={"listener.heard": {"attempts": 2}})),
            ConfigurationError,
        )
        self.assertEqual(str(error), "RETRY: listener.heard: the service listener has no method heard")

    async def test_dropped(self) -> None:
        """With ``on_parked: drop`` the last failure acks the message, and no parking queue is made."""
        await self.fail(FAILED, FAILED, FAILED, None, retry=QUICK, on_parked="drop")
        await self.assertFailure(
            Deferred.fromCoroutine(self.stage.get_message(f"{HEARD}.parked", block=False)), Exception
        )

    async def test_requeued(self) -> None:
        """With ``on_parked: requeue`` it goes back to its queue, and comes again with the number that it had."""
        heard = await self.fail(FAILED, FAILED, FAILED, None, retry=Retry(attempts=2, delay=0.001), on_parked="requeue")
        await heard.wait(4)
        self.assertEqual([context.attempt for _, context in heard.things], [1, 2, 2, 2])

    async def test_secrets(self) -> None:
        """The text and the traceback of an error hide passwords of URLs, and are cut; the class of the error stays."""
        await self.fail(ValueError("amqp://u:s3cret@h/ " + "x" * 20_000), retry=Retry(attempts=1))
        _, properties = await self.parked(HEARD)
        headers = properties["headers"]
        self.assertNotIn("s3cret", json.dumps(headers, default=str))
        self.assertLess(len(headers["txservices-error"]), 1_100)
        self.assertLess(len(headers["txservices-traceback"]), 8_100)
        self.assertRegex(headers["txservices-traceback"], r"(?s)^Traceback .*\nValueError: amqp://.* left out …x+$")

    async def test_no_room_in_headers(self) -> None:
        """A message whose own headers nearly fill a frame is parked without the traceback."""
        heard = Heard()
        await self.start(failing(heard, FAILED, retry=Retry(attempts=1)))
        properties: dict[str, Any] = {"headers": {"big": "x" * 129_900}, "content_type": "application/json"}
        await self.connections().publisher.publish("source.events", "type", b"1", properties)
        _, properties = await self.parked(HEARD)
        self.assertEqual(len(properties["headers"]["big"]), 129_900)
        self.assertNotIn("txservices-traceback", properties["headers"])

    async def test_told_once(self) -> None:
        """That no delay queue can be had is told once, although their names differ by chance, as delays do."""
        refusal = "queue 'txservices.delay.{}s.evt-source-type--listener.hear' may not be declared by our user"

        def publish_later(
            self: Any, exchange: str, key: str, body: bytes, properties: Any, delay: float, done: Any, timeout: Any
        ) -> None:
            done(ConfigurationError(refusal.format(delay)))

        self.patch(OnDemand, "publish_later", publish_later)
        with capturedLogs() as events:
            heard = await self.fail(FAILED, FAILED, FAILED, None, retry=Retry(delay=0.2))
            await heard.wait(4)
        lines = [line for event in events if (line := formatEvent(event)) and "did not take its copy" in line]
        self.assertEqual(len(lines), 1, lines)

    async def test_other_arguments(self) -> None:
        """A parking queue that exists with other arguments is told once, and the message stays in its queue."""
        await self.connections().publisher.declare(Queue(f"{HEARD}.parked", arguments={"x-max-length": 5}))
        globalLogPublisher.addObserver(logs.notes_call_id)
        self.addCleanup(globalLogPublisher.removeObserver, logs.notes_call_id)
        with capturedLogs() as events:
            heard = await self.fail(FAILED, FAILED, FAILED, None, retry=Retry(attempts=1))
            await heard.wait(4)
        [told] = [event for event in events if "did not take its copy" in event["log_format"]]
        self.assertRegex(told["call_id"], r"^listener\.hear\.")
        lines = [line for event in events if (line := formatEvent(event)) and "did not take its copy" in line]
        self.assertEqual(len(lines), 1)
        self.assertRegex(
            lines[0], "listener.hear: <Message .*> goes back to its queue, .* exists with other properties"
        )
        self.assertEqual([line for event in events if "is parked" in (line := formatEvent(event) or "")], [])


class RetriesOnRabbitMQ(OnRabbitMQ, RetryTests):
    """The same on a RabbitMQ."""


class ParkOnRabbitMQ(OnRabbitMQ, ParkTests):
    """The same on a RabbitMQ."""
