"""Protected calls: which are made again, when, and for how long; and which are not made."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from tests.services import OnRabbitMQ, ServicesCase, client_of
from txservices import CircuitBreaker, CircuitOpen, Retry, RpcProxy, rpc
from txservices.amqp.entities import Message
from txservices.amqp.options import Sending
from txservices.calls import Client
from txservices.exceptions import (
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    PublishBufferFull,
    PublishTimeout,
    RemoteError,
    RpcConnectionError,
    RpcTimeout,
    UndeliverableMessage,
    UnknownService,
    serialize,
)
from txservices.proxies import call_options, default_options
from txservices.testing import TestCase
from txservices.testing.waiting import Heard

UNROUTABLE = UndeliverableMessage("x", "k", 312, "NO_ROUTE")
STEADY = {"delay": 1, "growth": 1, "jitter": 0}


class AttemptsCase(TestCase):
    """A client whose publisher is the test, by virtual time."""

    def setUp(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.aborted: list[Any] = []
        connections: Any = SimpleNamespace(
            publisher=SimpleNamespace(
                publish_then=self.publish_then,
                connection=SimpleNamespace(protocol=None),
                channel=None,
            ),
            leaving=SimpleNamespace(on_aborted=self.aborted),
        )
        self.clock = Clock()
        self.left: float | None = None
        self.client = Client(connections, "me", {}, self.clock)
        self.stack = ["me.method.1"]
        self.owner: Any = SimpleNamespace(
            context_data={"call_id_stack": self.stack}, unconfirmed=None, time_left=lambda: self.left
        )
        self.addCleanup(self.clean)

    def clean(self) -> None:
        """Nothing is left in the reactor, no call waits, and no worker would wait for one."""
        self.client.abort()
        self.assertFalse(self.owner.unconfirmed is not None and self.owner.unconfirmed.calls)
        self.assertEqual((self.clock.getDelayedCalls(), self.client.waiting, self.client.pending), ([], set(), {}))

    def publish_then(self, *args: Any) -> Any:
        self.sent.append(args)
        return SimpleNamespace(deadline=self.clock.seconds() + (args[6] or 0))

    def call(self, service: str = "service", args: tuple[Any, ...] = (), **options: Any) -> Deferred[Any]:
        sending = default_options({}, {"timeout": 10, **options})
        return self.client.call(self.owner, service, "method", args, {}, sending)

    def tell(self, error: Exception | None) -> None:
        """Tell the outcome of the last publish."""
        self.sent[-1][5](error)

    def reply(self, result: Any = None, error: Exception | None = None) -> None:
        """Reply to the last request."""
        properties = {"correlation_id": self.sent[-1][3]["correlation_id"], "content_type": "application/json"}
        body = json.dumps({"result": result, "error": error and serialize(error)}).encode()
        self.client.handle_message(Message(body, properties, "", "reply", False, 1, "", lambda *_: None))


class RetryTests(AttemptsCase):
    """``retry=Retry(...)`` of a proxy."""

    def test_made_again(self) -> None:
        """A call of a service that is not there is made again, with an id of its own and the same call id stack."""
        call = self.call(retry=Retry(attempts=3, delay=1, growth=2, jitter=0))
        for delay in (1, 2):
            self.tell(UNROUTABLE)
            before = len(self.sent)
            self.clock.advance(delay - 0.01)
            self.assertEqual(len(self.sent), before)
            self.clock.advance(0.02)
            self.assertEqual(len(self.sent), before + 1)
        self.tell(None)
        self.reply(5)
        self.assertEqual(self.successResultOf(call), 5)
        properties = [each[3] for each in self.sent]
        self.assertEqual(len({each["correlation_id"] for each in properties}), 3)
        self.assertEqual([each["headers"]["nameko.call_id_stack"] for each in properties], [self.stack] * 3)
        self.assertEqual({each[1] for each in self.sent}, {"service.method"})

    def test_changed_meanwhile(self) -> None:
        """If arguments were changed until the next attempt, and can't be written now, the call ends with that error."""
        argument: list[Any] = [1]
        call = self.call(args=(argument,), retry=Retry(**STEADY))
        self.tell(UNROUTABLE)
        argument.append(object())
        self.clock.advance(1)
        self.failureResultOf(call, EncodeError)
        self.assertEqual(len(self.sent), 1)

    def test_which(self) -> None:
        """Without ``on`` only those are made again that have certainly not run; ``on`` adds, ``give_up_on`` takes."""
        lost, timeout = ConnectionLost("cut"), PublishTimeout("x", "k")
        full = PublishBufferFull(1, 1)
        table: list[tuple[dict[str, Any], Exception, bool]] = [
            ({}, UNROUTABLE, True),
            ({}, full, True),
            ({}, lost, False),
            ({}, timeout, False),
            ({"on": RpcConnectionError}, lost, True),
            ({"on": RpcConnectionError}, UNROUTABLE, True),
            ({"on": Exception}, timeout, True),
            ({"on": Exception}, lost, True),
            ({"give_up_on": UnknownService}, UNROUTABLE, False),
            ({"on": Exception, "give_up_on": RpcConnectionError}, lost, False),
            ({"attempts": 1}, UNROUTABLE, False),
        ]
        for options, error, again in table:
            self.sent.clear()
            call = self.call(retry=Retry(**STEADY, **options))
            self.tell(error)
            self.clock.advance(1)
            self.assertEqual(len(self.sent), 2 if again else 1, (options, error))
            call.addErrback(lambda failure: None).cancel()

    def test_remote_errors(self) -> None:
        """An error of the method is the answer, unless ``on`` says otherwise."""
        for options, again in (({}, False), ({"on": RemoteError}, True)):
            self.sent.clear()
            call = self.call(retry=Retry(**STEADY, **options))
            self.tell(None)
            self.reply(error=ValueError("no"))
            self.clock.advance(1)
            self.assertEqual(len(self.sent), 2 if again else 1)
            call.addErrback(lambda failure: None).cancel()

    def test_last(self) -> None:
        """After the last attempt the caller gets its error, named by the call."""
        call = self.call(retry=Retry(attempts=3, **STEADY))
        for _ in range(3):
            self.assertNoResult(call)
            self.tell(UNROUTABLE)
            self.clock.advance(1)
        error = self.failureResultOf(call, UnknownService).value
        self.assertEqual((len(self.sent), error.call), (3, "service.method"))

    def test_timeout(self) -> None:
        """All attempts together end within the call's time: the last has what is left, and the broker is told of it."""
        call = self.call(retry=Retry(**STEADY), timeout=4)
        for _ in range(3):
            self.tell(UNROUTABLE)
            self.clock.advance(1)
        self.tell(None)
        self.assertEqual([each[6] for each in self.sent], [4, 3, 2, 1])
        self.assertEqual([each[3]["expiration"] for each in self.sent], ["4000", "3000", "2000", "1000"])
        self.clock.advance(1.2)
        error = self.failureResultOf(call, RpcTimeout).value
        self.assertEqual((error.timeout, error.args), (4, (4,)))

    def test_no_time_left(self) -> None:
        """If the next attempt would begin when the time is over, the caller gets the error at once."""
        for timeout, left in ((1, None), (10, 1.0), (None, 0.5)):
            self.left = left
            call = self.call(retry=Retry(**STEADY), timeout=timeout)
            self.tell(UNROUTABLE)
            self.failureResultOf(call, UnknownService)

    def test_deadline_of_the_worker(self) -> None:
        """The worker's own deadline counts for each attempt."""
        self.left = 5.0
        call = self.call(retry=Retry(**STEADY))
        self.tell(UNROUTABLE)
        self.left = 4.0
        self.clock.advance(1)
        self.assertEqual([each[6] for each in self.sent], [5.0, 4.0])
        call.addErrback(lambda failure: None).cancel()

    def test_no_timeout(self) -> None:
        """A call without a timeout is made again, too, and has none then."""
        call = self.call(retry=Retry(**STEADY), timeout=None)
        self.tell(UNROUTABLE)
        self.clock.advance(1)
        self.assertEqual([each[6] for each in self.sent], [None, None])
        call.addErrback(lambda failure: None).cancel()

    def test_cancel(self) -> None:
        """Cancelling ends the attempt under way, or the wait for the next, and nothing more is sent."""
        for advance, expected in ((0, 1), (1, 2)):
            self.sent.clear()
            call = self.call(retry=Retry(on=Exception, **STEADY))
            self.tell(UNROUTABLE)
            self.clock.advance(advance)
            call.cancel()
            self.failureResultOf(call, CancelledError)
            self.clock.advance(60)
            self.assertEqual((len(self.sent), self.client.pending, self.client.waiting), (expected, {}, set()))

    def test_stop(self) -> None:
        """A stop of the proxy, or of the service without a broker, ends the wait: the last error is the answer."""
        for stop in (self.aborted[0], self.client.abort):
            waits, under_way = (self.call(retry=Retry(on=Exception, **STEADY)) for _ in range(2))
            self.sent[-2][5](UNROUTABLE)
            stop()
            self.failureResultOf(waits, UnknownService)
            self.failureResultOf(under_way, RpcConnectionError)
            self.assertEqual(self.client.waiting, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_arguments(self) -> None:
        """Arguments that can't be written raise from the call itself, as without a retry."""
        with self.assertRaises(EncodeError):
            self.call(args=(object(),), retry=Retry(), breaker=CircuitBreaker())
        self.assertEqual(self.sent, [])

    def test_unawaited(self) -> None:
        """One that failed and that nobody awaited is told with its name."""
        with capturedLogs() as events:
            self.call(retry=Retry(attempts=1))
            self.tell(UNROUTABLE)
            self.sent.clear()
        lines = [formatEvent(each) for each in events if each["log_level"].name == "error"]
        self.assertEqual(len(lines), 1)
        self.assertTrue(lines[0].startswith("the call of service.method failed, and nobody awaited it: UnknownService"))
        self.assertEqual(len(self.flushLoggedErrors(UnknownService)), 1)


class BreakerTests(AttemptsCase):
    """``breaker=CircuitBreaker(...)`` of a proxy, and ``CIRCUIT_BREAKER``."""

    POLICY = CircuitBreaker(minimum=2, open_for=5)

    def fail(self, count: int, service: str = "service", **options: Any) -> None:
        for _ in range(count):
            call = self.call(service, **options)
            self.tell(UNROUTABLE)
            self.failureResultOf(call, UnknownService)

    def test_open(self) -> None:
        """Calls of a service that failed too often fail at once and are not sent; those of others are."""
        self.fail(2, breaker=self.POLICY)
        error = self.failureResultOf(self.call(breaker=self.POLICY), CircuitOpen).value
        self.assertEqual((len(self.sent), error.seconds, error.call), (2, 5, "service.method"))
        self.fail(1, "other", breaker=self.POLICY)
        self.clock.advance(5)
        probe = self.call(breaker=self.POLICY)
        self.failureResultOf(self.call(breaker=self.POLICY), CircuitOpen)
        self.tell(None)
        self.reply(1)
        self.assertEqual(self.successResultOf(probe), 1)
        before = len(self.sent)
        for _ in range(2):
            self.call(breaker=self.POLICY).addErrback(lambda failure: failure.trap(RpcConnectionError))
        self.assertEqual(len(self.sent), before + 2)  # it is closed

    def test_answers_count(self) -> None:
        """A result, and an error that the method raised, are answers: with enough of them it stays closed."""
        for error in (None, None, ValueError("no")):
            call = self.call(breaker=self.POLICY)
            self.tell(None)
            self.reply(1) if error is None else self.reply(error=error)
            call.addErrback(lambda failure: failure.trap(RemoteError))
        self.fail(3, breaker=self.POLICY)
        self.failureResultOf(self.call(breaker=self.POLICY), CircuitOpen)

    def test_timeouts(self) -> None:
        """Calls without a reply open it; those that were not sent, their time being over, do not."""
        for _ in range(4):
            self.failureResultOf(self.call(timeout=0, breaker=self.POLICY), RpcTimeout)
        calls = [self.call(timeout=1, breaker=self.POLICY) for _ in range(2)]
        self.clock.advance(1.2)
        for call in calls:
            self.failureResultOf(call, RpcTimeout)
        self.failureResultOf(self.call(breaker=self.POLICY), CircuitOpen)

    def test_cancelled_probe(self) -> None:
        """A probe that is cancelled, or that can't be written, gives its place to the next call."""
        self.fail(2, breaker=self.POLICY)
        self.clock.advance(5)
        probe = self.call(breaker=self.POLICY)
        probe.cancel()
        self.failureResultOf(probe, CancelledError)
        with self.assertRaises(EncodeError):
            self.call(args=(object(),), breaker=self.POLICY)
        probe = self.call(breaker=self.POLICY)
        self.tell(None)
        self.reply(1)
        self.assertEqual(self.successResultOf(probe), 1)

    def test_with_retry(self) -> None:
        """Each attempt counts, and an open circuit ends them."""
        call = self.call(breaker=self.POLICY, retry=Retry(**STEADY))
        for _ in range(2):
            self.tell(UNROUTABLE)
            self.clock.advance(1)
        self.failureResultOf(call, CircuitOpen)
        self.assertEqual(len(self.sent), 2)

    def test_options(self) -> None:
        """An option goes over the configuration's; nameko's ``retry`` is ignored; without any nothing is kept."""
        config = {"CIRCUIT_BREAKER": {"failures": 0.2, "services": {"b": False}}}
        policy, retry = CircuitBreaker(failures=0.2), Retry()
        table: list[tuple[dict[str, Any], dict[str, Any], Any, Any]] = [
            ({}, {}, None, None),
            ({}, {"retry": True}, None, None),
            ({}, {"retry": False, "retry_policy": {"max_retries": 3}}, None, None),
            ({}, {"breaker": False}, None, None),
            ({}, {"retry": retry}, retry, None),
            ({}, {"breaker": self.POLICY}, None, self.POLICY),
            (config, {}, None, policy),
            (config, {"breaker": False}, None, None),
            (config, {"breaker": self.POLICY}, None, self.POLICY),
            (config, {"retry": retry}, retry, policy),
        ]
        for given, options, expected_retry, expected in table:
            sending = default_options(given, options)
            kept = sending.protection
            if expected_retry is expected is None:
                self.assertIsNone(kept, options)
                continue
            self.assertIs(kept.retry, expected_retry)
            self.assertEqual(kept.breakers and kept.breakers.of("a"), expected)
            self.assertIs(call_options(sending, {"retry": True}, True).protection.retry, expected_retry)
            for none in (None, False):
                off = call_options(sending, {"retry": none, "breaker": none}, True)
                self.assertIsNone(off.protection)
        for wrong in ({"retry": 5}, {"breaker": True}, {"breaker": 5}):
            with self.assertRaises(TypeError):
                default_options({}, wrong)
        with self.assertRaises(ConfigurationError):
            default_options({"CIRCUIT_BREAKER": {"windw": 1}}, {})
        with self.assertRaises(TypeError):
            Sending().merged({"breaker": self.POLICY})


class RestartTests(ServicesCase):
    """Calls of a service that is not there yet."""

    async def test_restart(self) -> None:
        """A call waits until the service is there, from a worker and from a program, and runs once."""
        heard, tried = Heard(), self.logged("is made again")

        class Late:
            name = "late"

            @rpc
            def method(self, value):
                heard(value)
                return value

        class Caller:
            name = "caller"
            late = RpcProxy("late", retry=Retry(attempts=100, delay=0.02, growth=1))
            plain = RpcProxy("late")

            @rpc
            async def method(self):
                return await self.late.method(1)

            @rpc
            async def unprotected(self):
                return await self.plain.method(3)

        await self.start(Caller)
        cluster = await self.cluster(retry=Retry(attempts=100, delay=0.02, growth=1))
        with self.assertRaises(RemoteError):
            await cluster.caller.unprotected()
        calls = [cluster.caller.method(), cluster.late.method(2)]
        await tried.wait(2)
        await self.start(Late)
        self.assertEqual([await each for each in calls], [1, 2])
        self.assertEqual(sorted(heard.things), [1, 2])
        self.assertEqual(client_of(cluster).waiting, set())
        self.flushLoggedErrors(UnknownService)

    async def test_breaker(self) -> None:
        """By the configuration: calls of a service that is not there fail at once, until it answers again."""
        self.config["CIRCUIT_BREAKER"] = {"minimum": 3, "open_for": 0.05}
        cluster = await self.cluster()
        for expected in [UnknownService] * 3 + [CircuitOpen] * 2:
            with self.assertRaises(expected):
                await cluster.late.method()

        class Late:
            name = "late"

            @rpc
            def method(self):
                return 1

        await self.start(Late)
        client_of(cluster).circuits.of("late", CircuitBreaker(minimum=3, open_for=0.05)).next_probe = 0
        self.assertEqual([await cluster.late.method() for _ in range(3)], [1, 1, 1])


class RestartRabbit(OnRabbitMQ, RestartTests):
    """The same on RabbitMQ."""
