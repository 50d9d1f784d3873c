"""Messages that are not tried again are parked, with the reasons."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent, globalLogPublisher

from tests.retry.test_retries import FAILED, HEARD, QUICK, RetriesCase, failing
from tests.services import OnRabbitMQ
from txservices.amqp.entities import Exchange, Queue
from txservices.amqp.ondemand import OnDemand
from txservices.command import logs
from txservices.events import BROADCAST, event_handler
from txservices.exceptions import ConfigurationError, MalformedRequest, RemoteError
from txservices.messaging import consume
from txservices.retry import Reject, Retry
from txservices.retry.failures import parking_queue
from txservices.testing.waiting import Heard


class ParkTests(RetriesCase):
    """A message that is not tried again is kept, with the reasons."""

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


class ParkOnRabbitMQ(OnRabbitMQ, ParkTests):
    """The same on a RabbitMQ."""
