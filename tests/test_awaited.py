"""The value of a call that is read without ``await``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from copy import copy
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure

from tests.services import ServicesCase
from txservices import CircuitBreaker, Retry, workers
from txservices.awaited import Answer
from txservices.exceptions import NotAwaited, RemoteError
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard

READS: dict[str, Any] = {
    "attribute": lambda answer: answer.status,
    "attribute with a default": lambda answer: getattr(answer, "status", None),
    "item": lambda answer: answer["key"],
    "iteration": lambda answer: list(answer),
    "unpacking": lambda answer: (lambda a, b: a)(*answer),
    "truth": lambda answer: not answer,
    "length": lambda answer: len(answer),
    "membership": lambda answer: 1 in answer,
    "equality": lambda answer: answer == 1,
    "inequality": lambda answer: answer != 1,
    "order": lambda answer: answer < 1,
    "sum": lambda answer: answer + 1,
    "sum on the right": lambda answer: 1 + answer,
    "product": lambda answer: 2 * answer,
    "number": lambda answer: int(answer),
    "range": lambda answer: range(answer),
    "text": lambda answer: str(answer),
    "format": lambda answer: f"{answer}",
    "rounding": lambda answer: float(answer),
}


# A schema of somebody else's, which reads each attribute that it knows.
library: dict[str, Any] = {"__name__": "somebody.elses"}
exec("def dump(value): return {'id': getattr(value, 'id', None)}", library)


class Answers(ServicesCase):
    """``Answer``."""

    def test_reads(self) -> None:
        """Whatever reads it raises an error that names the call and says what to do."""
        answer = Answer("y.get", Deferred())
        for what, read in READS.items():
            with self.assertRaises(NotAwaited, msg=what) as raised:
                read(answer)
            here = rf"\({re.escape(__file__)}, line {read.__code__.co_firstlineno}, in <lambda>\)"
            self.assertRegex(
                str(raised.exception), rf"^the value of y\.get\(\)(\.status)? is read .* {here}: .*`await`.*blocking"
            )
        self.assertRaises(TypeError, json.dumps, answer)

    def test_what_is_no_read(self) -> None:
        """It is a Deferred in all else: in sets, in comparisons with Deferreds, and for those who look what it is."""
        answer, other = Answer("y.get", Deferred()), Answer("y.get", Deferred())
        self.assertIsInstance(answer, Deferred)
        self.assertEqual(len({answer, other}), 2)
        self.assertTrue(answer == answer and answer != other and answer != succeed(1))
        self.assertIn(answer, [other, answer])
        self.assertRegex(repr(answer), "^<Answer at ")
        self.assertFalse(callable(answer))
        self.assertFalse(hasattr(answer, "__fspath__"))

    def test_uses(self) -> None:
        """Used as a Deferred it does what the plain one does, whether that has fired or not."""

        @inlineCallbacks
        def generator(answer: Deferred[Any]) -> Generator[Deferred[Any], Any, Any]:
            result = yield answer
            return result

        async def twice(answer: Deferred[Any]) -> tuple[Any, Any]:
            return await answer, await answer

        def canceled(answer: Deferred[Any]) -> Deferred[Any]:
            answer.cancel()
            return answer

        def paused(answer: Deferred[Any]) -> Deferred[Any]:
            answer.pause()
            answer.addCallback(str)
            answer.unpause()
            return answer

        def chained(answer: Deferred[Any]) -> Deferred[Any]:
            other: Deferred[Any] = Deferred()
            answer.chainDeferred(other)
            return other

        uses: dict[str, Callable[[Deferred[Any]], Deferred[Any]]] = {
            "callback": lambda answer: answer.addCallback(lambda value: value + 1),
            "errback": lambda answer: answer.addErrback(lambda failure: failure.type),
            "two of them": lambda answer: answer.addCallback(str).addBoth(repr),
            "result of a callback": lambda answer: succeed(None).addCallback(lambda _: answer),
            "chain": chained,
            "gathered": lambda answer: gatherResults([answer, succeed(2)], consumeErrors=True),
            "generator": generator,
            "coroutine": lambda answer: Deferred.fromCoroutine(twice(answer)),
            "callback, then coroutine": lambda answer: Deferred.fromCoroutine(twice(answer.addCallback(str))),
            "repr, then coroutine": lambda answer: (repr(answer), Deferred.fromCoroutine(twice(answer)))[1],
            "cancel": canceled,
            "pause": paused,
            "timeout": lambda answer: answer.addTimeout(1, Clock()),
            "called": lambda answer: succeed(answer.called),
        }
        for what, use in uses.items():
            for before in (True, False):
                for outcome in (1, Failure(ValueError("x"))):
                    outcomes = []
                    for make in (lambda plain: plain, lambda plain: Answer("y.get", plain)):
                        cancels: list[object] = []
                        plain: Deferred[Any] = Deferred(cancels.append)
                        answer = make(plain)
                        if before:
                            plain.callback(outcome)
                        used = use(answer)
                        if not (before or plain.called):
                            plain.callback(outcome)
                        results: list[Any] = []
                        used.addBoth(results.append)
                        (result,) = results
                        failed = result.getErrorMessage() if isinstance(result, Failure) else result
                        outcomes.append((failed, len(cancels), answer.called, plain.called))
                        answer.addErrback(lambda _: None)
                    self.assertEqual(outcomes[0], outcomes[1], (what, before, outcome))

    def test_state(self) -> None:
        """Whatever the plain one keeps is there, under whatever name a version of Twisted has for it; a copy is one."""
        plain: Deferred[Any] = Deferred()
        vars(plain)["of_another_version"] = 1
        answer = Answer("y.get", plain)
        self.assertEqual(answer.of_another_version, 1)
        answer.of_another_version = 2
        self.assertEqual(vars(plain)["of_another_version"], 2)
        self.assertIs(copy(answer).deferred, plain)

    def test_unhandled(self) -> None:
        """An error that nobody has handled is told once, as that of the plain one, also after a callback."""
        for use in (lambda answer: None, lambda answer: answer.addCallback(str), repr):
            plain: Deferred[Any] = Deferred()
            answer = Answer("y.get", plain)
            use(answer)
            plain.errback(ValueError("x"))
            del plain, answer
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_calls(self) -> None:
        """Calls and replies of proxies give it, and a schema that looks for attributes is told."""

        class Y:
            name = "y"

            @rpc
            def get(self) -> dict[str, int]:
                return {"id": 1}

        class Gateway:
            name = "gateway"
            y = RpcProxy("y")

            @rpc
            def wrong(self) -> dict[str, object]:
                found = self.y.get()
                return {key: getattr(found, key) for key in ("id",) if hasattr(found, key)}

            @rpc
            def wrong_reply(self) -> object:
                return self.y.get.call_async().result()["id"]

            @rpc
            def wrong_retry(self) -> object:
                return self.y.get.options(retry=Retry())()["id"]

            @rpc
            def wrong_breaker(self) -> object:
                return self.y.get.options(breaker=CircuitBreaker())()["id"]

            @rpc
            def wrong_too_late(self) -> object:
                late = self.y.get.options(timeout=0)()
                late.addErrback(lambda _: None)
                return late["id"]

            @rpc
            def wrong_in_a_library(self) -> object:
                return library["dump"](self.y.get())

            @rpc
            async def right(self) -> object:
                return (await self.y.get())["id"], (await self.y.get.call_async().result())["id"]

        await self.start(Y, Gateway)
        cluster = await self.cluster()
        self.assertEqual(await cluster.gateway.right(), [1, 1])
        for method in [each for each in vars(Gateway) if each.startswith("wrong")]:
            error = await self.assertFailure(getattr(cluster.gateway, method)(), RemoteError)
            self.assertRegex(str(error), rf"NotAwaited .*y\.get.* \({re.escape(__file__)}, line \d+, in ")
        self.flushLoggedErrors(NotAwaited)


class Unawaited(ServicesCase):
    """A call that is never waited for."""

    async def test_kill(self) -> None:
        """A kill ends a worker that waits for several of them. It cancels the one it waits for."""
        heard = Heard()
        calls: list[Deferred[None]] = []

        class Y:
            name = "y"

            @rpc
            def slow(self) -> Deferred[None]:
                waiting: Deferred[None] = Deferred()
                heard(waiting)
                return waiting

        class Caller:
            name = "caller"
            y = RpcProxy("y", timeout=None)

            @rpc
            def go(self) -> None:
                calls.extend(self.y.slow() for _ in range(2))

        _, container = await self.start(Y, Caller)
        going = (await self.cluster()).caller.go()
        going.addErrback(lambda _: None)
        slow = await heard.wait(2)
        with capturedLogs() as logged:
            container.workers.cancel()
            await container.workers.abort()
            self.assertEqual((container.workers.running, len(container.workers.pending)), (0, 0))
        self.assertEqual([formatEvent(each) for each in logged if each["log_level"] >= LogLevel.warn], [])
        self.assertEqual(sum(each.called for each in calls), 1)
        for each in calls:
            each.addErrback(lambda _: None)  # the other one fails with the end of the service
        await container.kill()
        for waiting in slow:
            if not waiting.called:
                waiting.callback(None)
        going.cancel()

    async def test_named_and_waited_for(self) -> None:
        """The log names it once, its worker ends after it, and its error is told."""
        ended: list[str] = []
        turn: Deferred[None] = Deferred()

        class Y:
            name = "y"

            @rpc
            async def slow(self, fail: bool) -> None:
                await turn
                ended.append("y")
                if fail:
                    raise ValueError("oh")

        class Caller:
            name = "caller"
            y = RpcProxy("y")
            protected = RpcProxy("y", retry=Retry(), breaker=CircuitBreaker())

            @rpc
            def go(self, fail: bool = False) -> None:
                self.y.slow(fail)

            @rpc
            def go_protected(self, fail: bool = False) -> None:
                self.protected.slow(fail)

            @rpc
            def on(self) -> None:
                self.y.slow.call_async(False)

            @rpc
            def more(self) -> None:
                self.y.slow(False)

        self.patch(workers, "UNAWAITED_MAX", 2)  # for the log, which is told of no third one
        await self.start(Y, Caller)
        cluster = await self.cluster()
        with capturedLogs() as logged:
            calls = [cluster.caller.go, cluster.caller.go, cluster.caller.go_protected]
            going = [call().addCallback(lambda _: ended.append("caller")) for call in calls]
            self.assertIsNone(await cluster.caller.on())  # it says that it goes on
            self.assertEqual(ended, [])
            turn.callback(None)
            for each in going:
                await each
            self.assertEqual(ended.index("caller") > ended.index("y"), True)
            await cluster.caller.go(True)
            await cluster.caller.go_protected(True)
            await cluster.caller.more()
        told = [formatEvent(each) for each in logged if each["log_namespace"] == "txservices.workers"]
        named = "caller.{} does not await its call of y.slow: it ends when that has ended. Write `await` before it"
        self.assertEqual(
            sorted(line for line in told if "await" in line), [named.format("go"), named.format("go_protected")]
        )
        lost = [formatEvent(each) for each in logged if "nobody awaited it" in formatEvent(each)]
        self.assertEqual(lost, ["the call of y.slow failed, and nobody awaited it: RemoteError: ValueError oh"] * 2)
        self.flushLoggedErrors()
