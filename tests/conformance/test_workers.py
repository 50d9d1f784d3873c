"""Workers: what travels with a call, what is logged of its errors, and when it is answered: lines 49 to 51 and 56."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from tests.conformance.cases import Case
from txservices.containers import ServiceContainer
from txservices.contextdata import AuthToken, ContextDataProvider, Language, UserAgent, UserId
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import RemoteError
from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.timer import timer


class Ids(DependencyProvider):
    """Tells the ids of each worker."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard

    def worker_setup(self, worker_ctx):
        self.heard(worker_ctx)


class Contexts(Case):
    """Lines 49 and 50: what travels with a call."""

    async def test_line_49_call_id_stack(self) -> None:
        """The stack grows by one with each service, also through an event, and keeps parent_calls_tracked parents."""
        heard = Heard()

        class Base:
            ids = Ids(heard)
            next = RpcProxy("b")

            @rpc
            def go(self):
                return self.next.go()

        class A(Base):
            name = "a"

        class B(Base):
            name = "b"
            next = RpcProxy("c")

        class C(Base):
            name = "c"
            dispatch = EventDispatcher()

            @rpc
            def go(self):
                return self.dispatch("type", 1)

        class D(Base):
            name = "d"

            @event_handler("c", "type")
            def hear(self, data):
                pass

        def named(ids: list[Any]) -> list[Any]:
            return [each and each.rpartition(".")[0] for each in ids]

        whole = ["standalone_rpc_proxy.call", "a.go", "b.go", "c.go", "d.hear"]
        for tracked, kept in ((10, 11), (2, 3), (0, 1)):
            heard.things.clear()
            await self.start(A, B, C, D, parent_calls_tracked=tracked)
            await (await self.cluster()).a.go()
            for count, worker_ctx in enumerate(await heard.wait(4), 2):
                self.assertEqual(named(worker_ctx.call_id_stack), whole[:count][-kept:])
                self.assertEqual(worker_ctx.call_id, worker_ctx.call_id_stack[-1])
                parents = whole[: count - 1][-kept:]  # as many as the one before has sent
                if count == 2:
                    parents = whole[:1]
                ends = [worker_ctx.origin_call_id, worker_ctx.immediate_parent_call_id]
                self.assertEqual(named(ends), [parents[0], parents[-1]])
            for container in self.stage.containers:
                await container.stop()

    async def test_line_50_context_data(self) -> None:
        """Each provider injects its value of the context data, or None."""

        class Service:
            name = "service"
            language = Language()
            user_id = UserId()
            user_agent = UserAgent()
            auth_token = AuthToken()
            custom = ContextDataProvider("custom")

            @rpc
            def given(self):
                return [self.language, self.user_id, self.user_agent, self.auth_token, self.custom]

        await self.start(Service)
        given = {"language": "en", "user_id": 7, "user_agent": "ua", "auth_token": "t", "custom": {"a": [1]}}
        self.assertEqual(await (await self.cluster(given)).service.given(), list(given.values()))
        self.assertEqual(await (await self.cluster()).service.given(), [None] * 5)


class Logs(Case):
    """Line 56."""

    async def test_line_56_expected_exceptions(self) -> None:
        """An expected exception is a warning, any other an error with its traceback; a list of them will do too.

        nameko takes a class or a tuple, and dies of a list.
        """
        clock = Clock()

        class Failing:
            name = "failing"

            @rpc(expected_exceptions=[KeyError, ValueError])
            def call(self, number):
                raise (KeyError, LookupError)[number]("why")

            @timer(interval=1, expected_exceptions=ZeroDivisionError)
            def tick(self):
                if clock.seconds() < 2:
                    raise ZeroDivisionError("why")
                raise TypeError("why")

        container = ServiceContainer(Failing, self.config, clock=clock)
        warnings, errors = self.lines(LogLevel.warn), self.lines(LogLevel.error)
        self.addCleanup(container.kill)
        entrypoints = {each.method_name: each for each in container.entrypoints}
        entrypoints["tick"].start()  # it alone: the broker's replies would need the other clock
        clock.pump([1, 1])
        for number in range(2):
            container.spawn_worker(entrypoints["call"], (number,), {})
        self.assertEqual([line.partition(" handling worker ")[0] for line in warnings.things], ["(expected) error"] * 2)
        self.assertRegex(warnings.things[0], r"<WorkerContext \[failing\.tick\] at .*ZeroDivisionError")
        self.assertEqual([line.partition(" handling worker ")[0] for line in errors.things], ["error"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError, LookupError)), 2)


class Replies(Case):
    """Line 51, seen from the caller."""

    async def test_line_51_reply_before_teardown(self) -> None:
        """The reply is published before ``worker_result`` and ``worker_teardown``, which may take their time."""
        teardown, torn = Deferred[None](), Heard()

        class Slow(DependencyProvider):
            def worker_teardown(self, worker_ctx):
                torn()
                return teardown

        class Service:
            name = "service"
            slow = Slow()

            @rpc
            def method(self):
                return 1

            @rpc
            def fail(self):
                raise RemoteError("ValueError", "why")

        await self.start(Service)
        service = (await self.cluster()).service
        self.assertEqual(await service.method(), 1)
        self.assertEqual(len(torn.things), 1)
        with self.assertRaises(RemoteError) as raised:
            await service.fail()
        self.assertEqual(str(raised.exception), "RemoteError ValueError why")
        teardown.callback(None)
        self.flushLoggedErrors(RemoteError)
