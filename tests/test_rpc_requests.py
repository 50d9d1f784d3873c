"""No request is lost: when it is acked, and when it goes back to its queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults

from tests.answering import MESSAGE, AnsweringCase, Other, Service
from tests.hostile import raising
from tests.services import Recorded, consuming
from txservices.amqp import leaving
from txservices.amqp import publisher as publisher_module
from txservices.amqp.entities import Exchange, Queue
from txservices.broker.memory import brokers
from txservices.containers import ServiceContainer
from txservices.events import EventDispatcher
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionLost,
    MalformedRequest,
    RemoteError,
    RpcConnectionError,
)
from txservices.rpc import Rpc, RpcProxy, rpc
from txservices.testing.waiting import Heard

ANY_FORMAT = {"ACCEPT": ["json", "msgpack"]}
LONE_SURROGATE = "\ud800"  # JSON can write it, msgpack can't


class RequestTests(AnsweringCase):
    """No request is lost."""

    async def test_stop_answers_what_was_taken(self) -> None:
        """A service that stops finishes what it has begun, and the answer is sent and acked."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        stopping = container.stop()
        self.assertFalse(stopping.called)
        answers[0].callback("done")
        self.assertEqual(await call, "done")
        await stopping
        await self.assert_empty("waiting")

    async def test_kill_gives_requests_back(self) -> None:
        """A request that a killed service had begun is run by another instance, and its caller has one answer."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        await container.kill()
        answers[0].addErrback(lambda failure: failure.trap(CancelledError))
        _, heard, answers = await self.waiting_service()
        await heard.wait()
        answers[0].callback("the other")
        self.assertEqual(await call, "the other")

    async def test_kill_fails_the_calls_of_a_service(self) -> None:
        """A call that a killed service made fails at once, also if no worker waits for it."""
        _, heard, answers = await self.waiting_service()
        calls = []

        class Asking:
            name = "asking"
            waiting = RpcProxy("waiting", timeout=None)

            @rpc
            def ask(self):
                calls.append(self.waiting.method().addErrback(lambda failure: failure))  # so it is looked after

        (container,) = await self.start(Asking)
        await (await self.cluster()).asking.ask()
        await heard.wait()
        await container.kill()
        self.failureResultOf(calls[0], RpcConnectionError)
        answers[0].callback(None)

    async def test_stop_without_a_broker(self) -> None:
        """A service that waits for its broker stops at once."""
        container = ServiceContainer(Service, {"AMQP_URI": "amqp://localhost:1/"})
        starting = container.start()
        await container.stop()
        with self.assertRaises(CancelledError):
            await starting

    async def test_lost_service_connection(self) -> None:
        """A service that loses its connections runs the request again, and the caller has one answer."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        consuming(container).protocol.abort()
        await heard.wait(2)
        for answer in answers:
            answer.callback("once")
        self.assertEqual(await call, "once")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_refused_reply(self) -> None:
        """A reply that the broker refuses is answered with an error, once, and the request is done with."""
        container, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        responder = next(iter(container.entrypoints)).rpc_consumer.responder
        publisher = responder.connections.publisher
        publish_then = publisher.publish_then

        def refusing(exchange, *args):
            publish_then("no-such-exchange" if refused.things == [] else exchange, *args)
            refused()

        refused = Heard()
        publisher.publish_then = refusing
        call = cluster.waiting.method()
        await heard.wait()
        answers[0].callback("x")
        with self.assertRaises(RemoteError) as raised:
            await call
        self.assertEqual(raised.exception.exc_type, "ChannelClosedByBroker")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_refused_reply_to_msgpack(self) -> None:
        """A refusal that the request's serializer can't write is answered in JSON, and says so."""
        container, heard, answers = await self.waiting_service(**ANY_FORMAT)
        publisher = container.shared.get("amqp", None).publisher
        publish_then = publisher.publish_then

        def refused_once(exchange, routing_key, body, properties, mandatory, done, timeout, always, retry_nacked):
            publisher.publish_then = publish_then
            done(ChannelClosedByBroker(406, LONE_SURROGATE))

        publisher.publish_then = refused_once
        call = (await self.process(**{**ANY_FORMAT, "serializer": "msgpack"}).cluster()).waiting.method()
        await heard.wait()
        answers[0].callback("x")
        error = await self.assertFailure(call, RemoteError)
        self.assertEqual(error.exc_type, "ChannelClosedByBroker")
        self.assertIn(LONE_SURROGATE, error.value)
        self.flushLoggedErrors(UnicodeEncodeError)  # trial's log file can't have the text either

    async def test_caller_is_gone(self) -> None:
        """A request whose caller's reply queue is gone is done with: the reply is dropped."""
        container, heard, answers = await self.waiting_service()
        body, properties = b'{"args": [], "kwargs": {}}', {**MESSAGE, "headers": {}, "reply_to": "nobody"}
        await self.connections().publisher.publish("nameko-rpc", "waiting.method", body, properties)
        await heard.wait()
        answers[0].callback("x")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_failed_reply(self) -> None:
        """A request whose reply could not be published goes back to its queue, and is answered the next time."""
        container, heard, answers = await self.waiting_service()
        publisher = container.shared.get("amqp", None).publisher
        publish_then = publisher.publish_then

        def lost_once(exchange, routing_key, body, properties, mandatory, done, timeout, always, retry_nacked):
            publisher.publish_then = publish_then
            done(ConnectionLost("lost"))

        publisher.publish_then = lost_once
        call = (await self.cluster()).waiting.method()
        await heard.wait()
        answers[0].callback("not published")
        await heard.wait(2)
        answers[1].callback("published")
        self.assertEqual(await call, "published")
        await container.stop()
        await self.assert_empty("waiting")

    async def test_reply_without_room(self) -> None:
        """A reply that finds no room among the unconfirmed messages is published nevertheless: the method runs once."""
        container, heard, answers = await self.waiting_service()
        call = (await self.cluster()).waiting.method()
        await heard.wait()
        room = self.patch(publisher_module, "UNCONFIRMED_MAX", 0)
        answers[0].callback("answer")
        self.assertEqual(await call, "answer")
        self.assertEqual(len(heard.things), 1)
        await container.stop()
        room.restore()
        await self.assert_empty("waiting")

    async def test_max_workers(self) -> None:
        """Requests over max_workers wait for their turn; replies to workers get through nevertheless."""

        class Busy:
            name = "busy"
            other = RpcProxy("other")

            @rpc
            def method(self, value):
                return self.other.identify(value)

        await self.start(Busy, Other, max_workers=1)
        busy = (await self.cluster()).busy
        values = await gatherResults([busy.method(number) for number in range(20)])
        self.assertEqual(values, [f"other {number}" for number in range(20)])

    async def test_unknown_content(self) -> None:
        """MalformedRequest arrives as itself at a caller whose format the service does not accept."""
        await self.start(Service)
        cluster = await self.process(serializer="pickle", ACCEPT=["pickle", "json"]).cluster()
        with self.assertRaises(MalformedRequest):
            await cluster.service.plain(1)


class Telling:
    """Tells everybody, and does not wait for it."""

    name = "telling"
    dispatch = EventDispatcher()

    @rpc
    def tell(self):
        self.dispatch("type", 1)
        return "told"


class PublishedTests(AnsweringCase):
    """The ack of a request, and the messages that its method published."""

    async def told(self) -> tuple[ServiceContainer, Queue]:
        """A service that has answered a call, while a full queue refuses what the method published; and that queue."""
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        queue = Queue("full", Exchange("telling.events", type="topic"), "type", arguments=full)
        await self.connections().publisher.declare(queue)
        (container,) = await self.start(Telling)
        self.assertEqual(await (await self.cluster()).telling.tell(), "told")
        return container, queue

    async def test_not_acked_before_it_is_confirmed(self) -> None:
        """A request whose reply is out, but not what its method published, is still the broker's to give to another."""
        container, _ = await self.told()
        self.patch(leaving, "STOP_TIMEOUT", 0.1)  # seconds that its end waits for that message
        await container.kill()
        connections, left = self.connections(), Recorded()
        requests = Queue("rpc-telling", Exchange("nameko-rpc", type="topic"), "telling.*")
        await connections.consume(requests, left, 10).ready
        await connections.publisher.publish("nameko-rpc", "telling.last", b"", {}, mandatory=True)
        self.assertEqual((await left.wait())[0].routing_key, "telling.tell")
        await self.stage.stop()

    async def test_acked_when_it_is_confirmed(self) -> None:
        """Once the broker takes what the method published, the request is acked."""
        container, queue = await self.told()
        host = brokers[self.config["AMQP_URI"].removeprefix("memory://")].vhosts["/"]
        host.delete_queue(host.queues[queue.name])
        await container.stop()
        await self.assert_empty("telling")


class HookTests(AnsweringCase):
    """Hooks that an author has overridden, and that fail: the caller gets that error once, and the request is acked."""

    async def calls(self, hook: str, way: Callable[..., Any]) -> tuple[Any, list[str]]:
        """The outcome of a call of a method whose entrypoint has that hook, and all replies to it, in order."""
        own = type("Own", (Rpc,), {hook: way}).decorator

        class Hooked:
            name = f"hooked-{hook}"

            @own
            def method(self):
                return "done"

        (container,) = await self.start(Hooked)
        replies = await self.tap("nameko-rpc", "#")
        outcome = await (await self.cluster())[Hooked.name].method().addErrback(lambda failure: failure.value)
        await container.stop()
        await self.assert_empty(Hooked.name)
        keys = [message.routing_key for message in replies.things]
        return outcome, [key for key in keys if not key.startswith("hooked")]

    async def test_before_the_worker(self) -> None:
        """One that fails before the method runs."""
        for hook in ("unpack_message_headers", "check_signature"):
            outcome, replies = await self.calls(hook, raising(KeyError))
            self.assertEqual((type(outcome), outcome.exc_type, len(replies)), (RemoteError, "KeyError", 1))
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_after_the_worker(self) -> None:
        """One that fails when the method has ended, before there is an answer."""
        outcome, replies = await self.calls("handle_result", raising(KeyError))
        self.assertEqual((type(outcome), outcome.exc_type, len(replies)), (RemoteError, "KeyError", 1))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    async def test_after_the_answer(self) -> None:
        """One that fails when the answer is on its way: there is no other."""

        def answers_and_fails(self: Any, *args: Any) -> Any:
            Rpc.handle_result(self, *args)
            raise KeyError

        outcome, replies = await self.calls("handle_result", answers_and_fails)
        self.assertEqual((outcome, len(replies)), ("done", 1))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
