"""The caller's side of RPC: what can be called and with what, what a call ends in, and that every call ends."""

from __future__ import annotations

import json
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.answering import MESSAGE, AnsweringCase, Custom, Other, Service
from tests.services import ServicesCase, client_of, overdue
from txservices.amqp.entities import Message
from txservices.amqp.options import Sending
from txservices.calls import Client
from txservices.events import EventDispatcher
from txservices.exceptions import (
    ConnectionLost,
    DecodeError,
    EncodeError,
    MethodNotFound,
    PublishBufferFull,
    PublishTimeout,
    RemoteError,
    ReplyQueueExpiredWithPendingReplies,
    RpcConnectionError,
    RpcTimeout,
    UndeliverableMessage,
    UnknownService,
)
from txservices.proxies import NAMES_MAX, ClusterProxy, ServiceProxy, default_options
from txservices.rpc import RpcProxy, rpc
from txservices.serialization.bounds import HERE_MAX
from txservices.testing.waiting import Heard
from txservices.wire.codec import encode_properties


class ManyNames(TestCase):
    """Names of services and methods that a program takes from strangers."""

    def test_many_names(self) -> None:
        """A proxy remembers a bounded number of them, and calls any of them."""
        called = []

        def begin(service: str, method: str, *_: Any) -> None:
            called.append(f"{service}.{method}")

        for proxy, name in [(ServiceProxy(begin, "s", Sending()), "s.m{}"), (ClusterProxy(begin, Sending()), "m{}.x")]:
            called.clear()
            for number in range(2 * NAMES_MAX):
                found = getattr(proxy, f"m{number}")
                (found if isinstance(proxy, ServiceProxy) else found.x)()
            self.assertEqual(called, [name.format(number) for number in range(2 * NAMES_MAX)])
            self.assertLessEqual(len(vars(proxy)), NAMES_MAX)
            self.assertIs(proxy.m1, proxy.m1)
            self.assertIsNot(getattr(proxy, f"m{2 * NAMES_MAX - 1}"), getattr(proxy, f"m{2 * NAMES_MAX - 1}"))


class CallTests(AnsweringCase):
    """The handle that a proxy gives, before and after there is an answer."""

    async def test_call_async(self) -> None:
        """``call_async`` does not wait; ``result()`` gives the value as often as asked, in any order."""
        await self.start(Service)
        service = (await self.cluster()).service
        first, second = service.plain.call_async(1), service.plain.call_async(2)
        self.assertEqual(await second.result(), 2)
        early = [first.result(), first.result()]
        self.assertEqual([await each for each in early], [1, 1])
        self.assertEqual(await first.result(), 1)

    async def test_unawaited(self) -> None:
        """A call that failed, and that nobody awaits, is told with its name and its error, and fails a trial's test."""
        await self.start(Service)
        _, _, answers = await self.waiting_service()
        cluster = await self.cluster()
        dropped = {
            "service.fail_expectedly": (cluster.service.fail_expectedly, RemoteError),
            "service.missing": (cluster.service.missing, MethodNotFound),
            "nobody.method": (cluster.nobody.method, UnknownService),
            "waiting.method": (cluster.waiting.method.options(timeout=0.02), RpcTimeout),
        }
        for name, (method, kind) in dropped.items():
            with capturedLogs() as events:
                failure = await self.dropped(method)
            lines = [formatEvent(each) for each in events if each["log_namespace"] == "txservices.calls"]
            text = f"the call of {name} failed, and nobody awaited it: {kind.__name__}: {failure.value}"
            self.assertEqual(lines, [text])
            self.assertEqual([each for each in events if each["log_namespace"] == "twisted.internet.defer"], [])
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
        for answer in answers:  # none, if its time was over before it began
            answer.callback(None)

    async def dropped(self, method: Any) -> Any:
        """The failure of a call whose Deferred is gone when that has failed."""
        failed = Heard()
        method().addErrback(lambda failure: failed(failure) or failure)
        [failure] = await failed.wait()
        await deferLater(reactor, 0)
        return failure

    async def test_awaited(self) -> None:
        """One that is awaited is not told, be it awaited before it fails or after."""
        cluster = await self.cluster()
        early, late = (cluster.nobody.method() for _ in range(2))
        with self.assertRaises(UnknownService):
            await early
        await self.assertFailure(cluster.nobody.method(), UnknownService)
        self.assertTrue(late.called)
        with self.assertRaises(UnknownService):
            await late
        del early, late
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_call_async_error(self) -> None:
        """An error is raised by each ``result()``; one that nobody asks for is a line in the log."""
        cluster = await self.cluster()
        reply = cluster.nobody.method.call_async()
        for _ in range(2):
            with self.assertRaises(UnknownService):
                await reply.result()
        dropped = cluster.nobody.method.call_async()
        with self.assertRaises(UnknownService):
            await dropped.waiting.wait()

    async def test_failure_that_nobody_asked_for(self) -> None:
        """The error of a ``call_async`` is logged if nobody asks for it, in its caller's context; and only then."""
        await self.start(Service)
        cluster = await self.cluster()
        caller: ContextVar[str] = ContextVar("caller", default="nobody")
        lines = Heard()

        def observe(event: Any) -> None:
            if event["log_level"] is LogLevel.error:
                lines((caller.get(), event["log_format"].format(**event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        def in_context(method: Any) -> Any:
            caller.set("me")
            return method.call_async(1)

        async def drop(method: Any, ask: bool) -> None:
            """Make a call, and forget its reply when it has come."""
            reply = copy_context().run(in_context, method)
            answer = reply.result() if ask else reply.waiting.wait()
            await answer.addErrback(lambda failure: failure.trap(UnknownService))

        await drop(cluster.service.plain, ask=False)
        await drop(cluster.nobody.method, ask=True)
        await drop(cluster.nobody.other, ask=False)
        ((told, line),) = await lines.wait()
        self.assertEqual(told, "me")
        self.assertTrue(line.startswith("nobody.other failed, and nobody asked: "), line)

    async def test_forked(self) -> None:
        """After a fork a reply that has come can be asked for; one that has not is its parent's."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        first, second = cluster.waiting.method.call_async(), cluster.waiting.method.call_async()
        await heard.wait(2)
        answers[0].callback(1)
        self.assertEqual(await first.result(), 1)
        with mock.patch("os.getpid", lambda: 0):
            self.assertEqual(self.successResultOf(first.result()), 1)
            with self.assertRaises(RpcConnectionError) as raised:
                second.result()
        self.assertIn("waiting.method", str(raised.exception))
        answers[1].callback(2)
        self.assertEqual(await second.result(), 2)

    async def test_unserializable_arguments(self) -> None:
        """Arguments that can't be written raise before anything is sent, and the proxy goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        for unserializable in (object(), {1}):
            with self.assertRaises(EncodeError):
                cluster.service.plain(unserializable)
        self.assertEqual(client_of(cluster).pending, {})
        self.assertEqual(await cluster.service.plain(1), 1)

    async def test_header_that_cannot_be_carried(self) -> None:
        """A header value that AMQP has no type for raises, leaves nothing behind, and the proxy goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(ValueError):
            cluster.service.plain.options(headers={"x": object()})(1)
        self.assertEqual(client_of(cluster).pending, {})
        self.assertEqual(await cluster.service.plain(1), 1)

    async def test_names_that_are_no_names(self) -> None:
        """Services are had by attribute and by item; private names of Python's are no methods."""
        cluster = await self.cluster()
        self.assertEqual(repr(cluster["a-b"].method), "<proxy method: a-b.method>")
        self.assertEqual(repr(cluster.a), "<proxy service: a>")
        self.assertFalse(hasattr(cluster.a, "__wrapped__"))
        self.assertFalse(hasattr(cluster, "__wrapped__"))
        self.assertIs(cluster.a.method, cluster.a.method)  # made once

    async def test_blocking_worker(self) -> None:
        """In a blocking service, calls, replies and dispatches wait in the thread and give values."""
        heard = await self.tap("blocking.events")

        class Blocking:
            name = "blocking"
            blocking = True
            other = RpcProxy("other")
            dispatch = EventDispatcher()

            @rpc
            def method(self, value):
                told = self.dispatch("type", value)
                reply = self.other.identify.call_async(value)
                try:
                    self.other.fail()
                except RemoteError as error:
                    return [self.other.identify(value), reply.result(), str(error), told]

        await self.start(Blocking, Other)
        value = await (await self.cluster()).blocking.method(1)
        self.assertEqual(value, ["other 1", "other 1", "Custom there", None])
        self.assertEqual([message.body for message in await heard.wait()], [b"1"])
        self.flushLoggedErrors(Custom)


class OptionTests(ServicesCase):
    """How a call is sent, as far as the proxy may say."""

    async def test_options(self) -> None:
        """A proxy's options are on its messages; where they go and are answered to can't be changed by them."""

        class Optional:
            name = "optional"
            service = RpcProxy(  # type: ignore[call-arg]  # the mistake
                "service", priority=3, headers={"h": 1}, exchange="x", routing_key="x", mandatory=False, reply_to="x",
                correlation_id="x", timeout=5,
            )  # fmt: skip

            @rpc
            def method(self):
                return self.service.plain.options(priority=4, timeout=None)(1)

            @rpc
            def method_with_less(self):
                return self.service.plain(1)

        await self.start(Service, Optional)
        tap = await self.tap("nameko-rpc", "service.plain")
        cluster = await self.cluster()
        self.assertEqual([await cluster.optional.method(), await cluster.optional.method_with_less()], [1, 1])
        first, second = [message.properties for message in await tap.wait(2)]
        self.assertEqual((first["priority"], first.get("expiration"), first["headers"]["h"]), (4, None, 1))
        self.assertEqual((second["priority"], second["expiration"], second["headers"]["h"]), (3, "5000", 1))

    def test_of_a_proxy_and_of_a_call(self) -> None:
        """Headers of a proxy are below the context's, those of one call above.

        The broker is told of the call's timeout, unless an expiration says otherwise.
        """
        sent: list[Sending] = []
        service = ServiceProxy(lambda *call: sent.append(call[-1]), "s", default_options({}, {"headers": {"p": 1}}))
        for timeout, others, expiration in ((0.5, {}, "500"), (None, {}, None), (2, {"expiration": 60}, "60000")):
            service.method.options(headers={"c": 2}, timeout=timeout, **others)()
            sending = sent.pop()
            self.assertEqual((sending.headers, sending.call_headers), ({"p": 1}, {"c": 2}))
            self.assertEqual((sending.timeout, sending.properties["expiration"]), (timeout, expiration))

    async def test_unknown_option(self) -> None:
        """An option that means nothing is refused when the service starts, with those there are."""

        class Wrong:
            name = "wrong"
            service = RpcProxy("service", prioritty=3)  # type: ignore[call-arg]  # the mistake

            @rpc
            def method(self):
                pass

        with self.assertRaises(TypeError) as raised:
            await self.start(Wrong)
        self.assertIn("no option 'prioritty'", str(raised.exception))


class EndTests(AnsweringCase):
    """Every call ends."""

    async def test_timeout(self) -> None:
        """A call whose time is up fails; its late reply is dropped and the proxy goes on."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster(timeout=60)
        call = self.assertFailure(cluster.waiting.method(), RpcTimeout)
        await heard.wait()
        await overdue(cluster)
        self.assertEqual((await call).args, (60,))
        tap = await self.tap("nameko-rpc", client_of(cluster).reply_to)
        answers[0].callback("late")
        await tap.wait()
        call = cluster.waiting.method.options(timeout=10)()
        await heard.wait(2)
        answers[1].callback("in time")
        self.assertEqual(await call, "in time")
        self.assertEqual(client_of(cluster).pending, {})

    async def test_time_that_is_over(self) -> None:
        """A call with a timeout of 0 or less fails at once, and is not sent; one that is no number is an error."""
        cluster = await self.cluster()
        for timeout in (0, -1, -0.5):
            error = self.failureResultOf(cluster.nobody.method.options(timeout=timeout)(1), RpcTimeout).value
            self.assertEqual((error.args, error.state), ((timeout,), "its time was over before it was sent"))
        self.assertEqual(client_of(cluster).pending, {})
        for timeout in (float("nan"), float("inf"), "5"):
            with self.assertRaises((ValueError, TypeError)):
                cluster.nobody.method.options(timeout=timeout)

    async def test_cancel(self) -> None:
        """A cancelled call is forgotten; the method runs nevertheless."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        call.cancel()
        with self.assertRaises(CancelledError):
            await call
        self.assertEqual(client_of(cluster).pending, {})
        answers[0].callback(None)

    async def test_stopped_proxy(self) -> None:
        """Calls under way fail when their proxy stops, and later ones are refused."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        await self.stage.stops[-1]()
        with self.assertRaises(RpcConnectionError):
            await call
        with self.assertRaises(RuntimeError):
            cluster.waiting.method()
        answers[0].callback(None)

    async def test_expired_reply_queue(self) -> None:
        """Calls fail at once when their reply queue is gone, and new ones have one of the same name."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        call = cluster.waiting.method()
        await heard.wait()
        protocol = await self.connections().consuming.when_connected()
        channel = await protocol.open_channel()
        await channel.queue_delete(queue=client_of(cluster).queue.name)
        with self.assertRaises(ReplyQueueExpiredWithPendingReplies):
            await call
        answers[0].callback("nobody takes it")
        again = cluster.waiting.method()
        await heard.wait(2)
        answers[1].callback(2)
        self.assertEqual(await again, 2)

    async def test_lost_connections(self) -> None:
        """A call survives the loss of its caller's connections: the reply waits in the queue."""
        heard, answer = Heard(), Deferred[str]()

        class Once:
            name = "once"

            @rpc
            def method(self):
                heard()
                return answer if len(heard.things) == 1 else "of a request that was sent again"

        await self.start(Once)
        cluster = await self.cluster()
        call = cluster.once.method()
        await heard.wait()
        connections = client_of(cluster).connections
        for connection in (connections.consuming, connections.publisher.connection):
            connection.protocol.abort()
        answer.callback("after all")
        self.assertIn(await call, ("after all", "of a request that was sent again"))

    async def test_replies_that_are_none(self) -> None:
        """A reply that can't be read fails its call, and it alone."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        client = client_of(cluster)
        connections = self.connections()
        table: list[tuple[bytes, dict[str, Any]]] = [
            (b"{}", {}),
            (b"{", {}),
            (b"[]", {}),
            (b"{}", {"content_type": "text/plain"}),
        ]
        for count, (body, properties) in enumerate(table, 1):
            call = cluster.waiting.method()
            await heard.wait(count)
            (correlation_id,) = client.pending
            whole = {**MESSAGE, "headers": {}, "correlation_id": correlation_id, **properties}
            await connections.publisher.publish("nameko-rpc", client.reply_to, body, whole, mandatory=True)
            with self.assertRaises(DecodeError):
                await call
            self.assertEqual(client.consumer.unsettled, 0)
        for answer in answers:
            answer.callback(None)


class ClientTests(TestCase):
    """A client by itself: what its calls end in when their requests, their reply queue or the broker are gone."""

    def setUp(self) -> None:
        self.aborted: list[Any] = []
        self.sent: list[tuple[Any, ...]] = []
        connections: Any = SimpleNamespace(
            publisher=SimpleNamespace(
                publish_then=self.publish_then, connection=SimpleNamespace(protocol=None), channel=None
            ),
            leaving=SimpleNamespace(on_aborted=self.aborted),
        )
        self.connections = connections
        self.clock = Clock()
        self.client = Client(connections, "me", {}, self.clock)
        self.owner: Any = SimpleNamespace(context_data={}, unconfirmed=None, time_left=lambda: None)

    def publish_then(self, *args: Any) -> Any:
        self.sent.append(args)
        return SimpleNamespace(deadline=self.clock.seconds() + args[6])

    def call(self) -> Deferred[Any]:
        return self.client.call(self.owner, "service", "method", (), {}, Sending(timeout=3))

    def test_requests_that_did_not_get_out(self) -> None:
        """A request that the broker does not take is an error that speaks of the call, with its cause behind it."""
        full, lost = PublishBufferFull(1, 1), ConnectionLost("cut")
        unroutable, late = UndeliverableMessage("x", "k", 312, "NO_ROUTE"), PublishTimeout("x", "k")
        table: list[tuple[Exception, type[Exception], tuple[Any, ...]]] = [
            (unroutable, UnknownService, ("service",)),
            (late, RpcTimeout, (3,)),
            (lost, RpcConnectionError, (str(lost),)),
        ]
        for error, expected, arguments in table:
            call = self.call()
            self.sent[-1][5](error)
            told = self.failureResultOf(call, expected).value
            self.assertEqual((told.args, told.__cause__, told.call), (arguments, error, "service.method"))
            self.assertIn("(call of service.method)", str(told))
            self.assertEqual(self.owner.unconfirmed.count, 0)
        call = self.call()
        self.sent[-1][5](full)
        self.assertIs(self.failureResultOf(call).value, full)

    def test_late(self) -> None:
        """An ``RpcTimeout`` says whether the request was sent, is with the broker, or is taken by the service."""
        states = (
            (None, False, "it was not sent, for there was no connection to a broker"),
            ("open", False, "the broker has not confirmed that it has the request"),
            ("open", True, "the broker has the request, so it waits in queue rpc-service"),
            (None, True, "the broker has the request, so it waits in queue rpc-service"),
        )
        for protocol, taken, words in states:
            call = self.call()
            self.connections.publisher.connection.protocol = protocol
            if taken:
                self.sent[-1][5](None)
            self.clock.pump([1] * 5)
            text = str(self.failureResultOf(call, RpcTimeout).value)
            self.assertTrue(text.startswith(f"no reply within 3 s: {words}"), text)
            self.assertTrue(text.endswith("(call of service.method)"), text)

    def test_nothing_is_kept(self) -> None:
        """A caller's context keeps nothing of a call that has ended, in whichever way: a program's lives for long."""

        def reply(call: Deferred[Any], error: Any) -> None:
            (correlation_id,) = self.client.pending
            properties = {"correlation_id": correlation_id, "content_type": "application/json"}
            body = json.dumps({"result": 1, "error": error}).encode()
            self.client.handle_message(Message(body, properties, "", "r", False, 1, "", lambda *settled: None))

        ends: dict[str, Any] = {
            "answered": lambda call: reply(call, None),
            "failed": lambda call: reply(call, {"exc_type": "KeyError", "value": "k"}),
            "not sent": lambda call: self.sent[-1][5](ConnectionLost("cut")),
            "late": lambda call: self.clock.pump([1] * 5),
            "cancelled": lambda call: call.cancel(),
        }
        for way, end in ends.items():
            with self.subTest(way):
                call = self.call()
                self.assertEqual(len(self.owner.unconfirmed.calls), 1)
                end(call)
                self.assertEqual((self.owner.unconfirmed.calls, self.client.pending, call.called), (set(), {}, True))
                call.addErrback(lambda failure: None)
        self.connections.publisher.publish_then = lambda *args: 1 // 0
        confirmed = self.owner.unconfirmed.count
        self.assertRaises(ZeroDivisionError, self.call)
        self.assertEqual(
            (self.owner.unconfirmed.calls, self.owner.unconfirmed.count, self.client.pending), (set(), confirmed, {})
        )

    def test_context_that_can_not_be_sent(self) -> None:
        """A call goes out without the headers that a stranger put in its context and that can't be sent."""

        def publish_then(*args: Any) -> Any:
            encode_properties(args[3])  # a ValueError for a name that is too long
            return self.publish_then(*args)

        self.connections.publisher.publish_then = publish_then
        self.connections.publisher.header_max = 1000
        self.owner.context_data = {"n" * 256: 1, "good": 2}
        call = self.call()
        ((exchange, routing_key, _, properties, mandatory, _, timeout),) = self.sent
        self.assertEqual((exchange, routing_key, mandatory, timeout), ("nameko-rpc", "service.method", True, 3))
        self.assertEqual(properties["headers"].keys(), {"nameko.good", "nameko.call_deadline", "nameko.call_time_left"})
        self.sent[0][5](UndeliverableMessage("x", "k", 312, "NO_ROUTE"))
        self.failureResultOf(call, UnknownService)

    async def test_long_reply(self) -> None:
        """It is decoded in a thread; its call still waits, and the reply is not acked before."""
        call, value = self.call(), "x" * HERE_MAX
        (correlation_id,) = self.client.pending
        acked: list[bool] = []

        def settle(message: Message, ack: bool, requeue: bool) -> None:
            acked.append(ack)

        properties = {"correlation_id": correlation_id, "content_type": "application/json"}
        body = json.dumps({"result": value, "error": None}).encode()
        self.client.handle_message(Message(body, properties, "", "reply", False, 1, "", settle))
        self.assertEqual((acked, [*self.client.pending]), ([], [correlation_id]))
        self.assertEqual(await call, value)
        self.assertEqual(acked, [True])

    async def test_queue_that_is_deleted(self) -> None:
        """The reply queue is taken away if there is an open channel to the broker, and else nothing is waited for."""
        deleted: list[str] = []

        def delete(queue: str) -> Deferred[None]:
            deleted.append(queue)
            return succeed(None)

        def answered(answer: Deferred[None]) -> Deferred[None]:
            waited.append(answer)
            return answer

        waited: list[Deferred[None]] = []
        self.connections.leaving.answered = answered
        await self.client.delete_queue()
        table: list[tuple[Any, list[str]]] = [
            (None, []),
            (SimpleNamespace(closing=True, queue_delete=delete), []),
            (SimpleNamespace(closing=False, queue_delete=delete), ["replies"]),
        ]
        for channel, expected in table:
            consumer: Any = SimpleNamespace(channel=channel, queue_name="replies", detach=lambda: None)
            self.client.consumer = consumer
            await self.client.delete_queue()
            self.assertEqual((deleted, len(waited)), (expected, len(expected)))

    def test_reply_that_nobody_waits_for(self) -> None:
        """It is acked, and that is all."""
        acked: list[bool] = []

        def settle(message: Message, ack: bool, requeue: bool) -> None:
            acked.append(ack)

        self.client.handle_message(Message(b"", {"correlation_id": "unknown"}, "", "reply", False, 1, "", settle))
        self.assertEqual(acked, [True])

    def test_reply_queue_lost(self) -> None:
        """Calls fail when there is another reply queue in place of the lost one, and not before; later ones do not."""
        subscription: Any = SimpleNamespace(on_ready=[], ready=Deferred())
        opened: list[Any] = []

        def consume(*args: Any) -> Any:
            opened.append(args)
            return subscription

        self.client.listen(consume)
        (ready,) = subscription.on_ready
        first_queue = opened[0][0]
        self.assertEqual(first_queue.name, f"rpc.reply-me-{self.client.reply_to}")
        call = self.call()
        ready()
        self.assertNoResult(call)
        subscription.on_missing()
        self.assertNotEqual(subscription.queue.name, first_queue.name)
        self.assertEqual(subscription.queue.name, f"rpc.reply-me-{self.client.reply_to}")
        self.assertNoResult(call)
        ready()
        self.failureResultOf(call, ReplyQueueExpiredWithPendingReplies)
        later = self.call()
        ready()
        self.assertNoResult(later)

    def test_no_broker(self) -> None:
        """Calls fail when a stop waits for the broker no longer."""
        call = self.call()
        for abort in self.aborted:
            abort()
        self.assertIn("no broker", str(self.failureResultOf(call, RpcConnectionError).value))

    def test_stopped(self) -> None:
        """A client that was stopped, also twice, leaves nothing behind with the connections."""
        call = self.call()
        self.client.abort()
        self.client.abort()
        self.assertIn("stopped", str(self.failureResultOf(call, RpcConnectionError).value))
        self.assertEqual(self.aborted, [])
