"""The caller's side of RPC: every call ends, and in what."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.answering import MESSAGE, AnsweringCase
from tests.services import client_of, overdue
from txservices import constants
from txservices.amqp.entities import Message
from txservices.amqp.options import Sending
from txservices.calls import Client
from txservices.exceptions import (
    ConnectionLost,
    DecodeError,
    PublishBufferFull,
    PublishTimeout,
    ReplyQueueExpiredWithPendingReplies,
    RpcConnectionError,
    RpcTimeout,
    UndeliverableMessage,
    UnknownService,
)
from txservices.proxies import default_options
from txservices.rpc import rpc
from txservices.serialization.bounds import HERE_MAX
from txservices.testing.waiting import Heard
from txservices.wire.codec import encode_properties


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
        tap = await self.tap("nameko-rpc", client_of(cluster).replies.reply_to)
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
            self.assertEqual(error.call, "nobody.method")
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
        await channel.queue_delete(queue=client_of(cluster).replies.queue.name)
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
            await connections.publisher.publish("nameko-rpc", client.replies.reply_to, body, whole, mandatory=True)
            with self.assertRaises(DecodeError):
                await call
            self.assertEqual(client.replies.consumer.unsettled, 0)
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

    def test_less_time_than_asked_for(self) -> None:
        """A request whose own caller waits for less time expires with that."""
        sending = default_options({}, {"timeout": 3})
        for left, expiration in ((1.5, "1500"), (None, "3000"), (5.0, "3000")):
            self.owner.time_left = lambda left=left: left
            self.client.call(self.owner, "service", "method", (), {}, sending).addErrback(lambda failure: None)
            self.assertEqual(self.sent[-1][3]["expiration"], expiration)
        self.client.abort()

    def test_cancelled(self) -> None:
        """The service of a cancelled call is told, if there is a channel for that and the proxy goes on."""
        for channel, stopped, told in ((None, False, False), (object(), False, True), (object(), True, False)):
            self.connections.publisher.channel = channel
            call = self.call()
            self.client.stopped = stopped
            call.cancel()
            self.failureResultOf(call, CancelledError)
            self.assertEqual(len(self.sent), 1 + told)
            if told:
                exchange, key, body, properties, mandatory, done, _ = self.sent[1]
                key_of_service = constants.RPC_CANCEL_TEMPLATE.format("service")
                self.assertEqual((exchange, key, body, mandatory), ("nameko-rpc", key_of_service, b"", False))
                self.assertEqual(properties["correlation_id"], self.sent[0][3]["correlation_id"])
                with capturedLogs() as logged:
                    done(None)
                    self.assertEqual(list(logged), [])
                    done(ConnectionLost("cut"))
                self.assertIn("was not told of a cancelled call", formatEvent(logged[0]) or "")
            self.sent.clear()

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
        await self.client.replies.delete(self.connections.leaving)
        table: list[tuple[Any, list[str]]] = [
            (None, []),
            (SimpleNamespace(closing=True, queue_delete=delete), []),
            (SimpleNamespace(closing=False, queue_delete=delete), ["replies"]),
        ]
        for channel, expected in table:
            consumer: Any = SimpleNamespace(channel=channel, queue_name="replies", detach=lambda: None)
            self.client.replies.consumer = consumer
            await self.client.replies.delete(self.connections.leaving)
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

        self.client.replies.listen(consume)
        (ready,) = subscription.on_ready
        first_queue = opened[0][0]
        self.assertEqual(first_queue.name, f"rpc.reply-me-{self.client.replies.reply_to}")
        call = self.call()
        ready()
        self.assertNoResult(call)
        subscription.on_missing()
        self.assertNotEqual(subscription.queue.name, first_queue.name)
        self.assertEqual(subscription.queue.name, f"rpc.reply-me-{self.client.replies.reply_to}")
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
