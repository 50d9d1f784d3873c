"""A worker's life: what is called in which order, what waits, and how it ends."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import hostile
from tests.recording import Case, variable
from txservices.containers import ServiceContainer, WorkerContext
from txservices.deadlines import FOREVER
from txservices.exceptions import CallerGone
from txservices.extensions import Entrypoint
from txservices.workers import Workers, failure_of, go_on


class Order(Case):
    """Notes its calls, one after the other."""

    def test_order(self) -> None:
        """Dependencies, setups, method, entrypoint, results, teardowns."""
        self.spawn("run", lambda service: self.calls.append(("method", service.plain)) or 7)
        self.assertEqual(
            self.calls,
            [
                ("get", "one"),
                ("get", "two"),
                ("setup", "one"),
                ("setup", "two"),
                ("method", "value"),
                ("handle", 7, None),
                ("result", "one", 7, None),
                ("result", "two", 7, None),
                ("teardown", "one"),
                ("teardown", "two"),
            ],
        )
        self.assertEqual(self.over, [(7, None)])

    def test_no_deferred(self) -> None:
        """Where nothing waits no Deferred is made and all is over at once."""
        with mock.patch.object(Deferred, "__init__", side_effect=AssertionError("a Deferred was made")):
            self.spawn("run", lambda service: 7)
        self.assertEqual(self.over, [(7, None)])

    def test_instances(self) -> None:
        """Each worker has an instance of its own."""
        seen: list[tuple[Any, Any]] = []

        def handle_result(worker: Any, result: Any, exc_info: Any) -> Any:
            seen.append((worker.service, result))
            return result, exc_info

        for _ in range(2):
            self.spawn("run", lambda service: service, handle_result=handle_result)
        (first, first_self), (second, second_self) = seen
        self.assertIsNot(first, second)
        self.assertIs(first, first_self)
        self.assertIs(second, second_self)

    def test_result_is_replaced(self) -> None:
        """Dependencies see the result as the entrypoint has changed it."""
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: ("other", None))
        self.assertIn(("result", "one", "other", None), self.calls)

    def test_without_handle_result(self) -> None:
        """An entrypoint need not be told."""
        data = {"calls": self.calls}
        worker = self.container.spawn_worker(self.container.entrypoints[0], (lambda service: 1,), {}, data)
        self.assertIsNone(worker.service)  # a cycle, which would keep what is injected
        self.assertIn("teardown two", self.hooks())

    def test_context_variables(self) -> None:
        """A worker's context variables are its own, before and after it waits."""
        waiting: Deferred[None] = Deferred()
        found: list[str] = []

        async def method(name: str) -> None:
            found.append(variable.get())
            variable.set(name)
            await waiting
            found.append(variable.get())

        self.spawn("run", lambda service: method("one"))
        self.spawn("run", lambda service: method("two"))
        waiting.callback(None)
        self.assertEqual(found, ["unset", "unset", "one", "two"])
        self.assertEqual(variable.get(), "unset")


class Waiting(Case):
    """Methods and hooks that give a Deferred or are coroutines."""

    def test_methods(self) -> None:
        """async def, inlineCallbacks and a plain method that returns a Deferred are waited for alike."""
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
        self.spawn("wait", waiting[0])
        self.spawn("generate", waiting[1])
        self.spawn("run", lambda service: waiting[2])
        self.assertEqual((self.handled, self.container.workers.running), ([], 3))
        for number, each in enumerate(waiting):
            each.callback(number)
        self.assertEqual(self.handled, [(0, None), (1, None), (2, None)])
        self.assertEqual(self.container.workers.running, 0)

    def test_aborted_alone(self) -> None:
        """A worker whose caller has gone is cancelled, and no other; once it has ended, nothing is kept of it."""
        workers, gone = self.container.workers, CallerGone("its caller has gone")
        first, second = self.spawn("wait", Deferred()), self.spawn("wait", Deferred())
        self.assertTrue(workers.abort_worker(second, gone))
        self.assertEqual([exc_info[1] for _, exc_info in self.handled], [gone])
        self.assertEqual([running.worker for running in workers.pending.values()], [first])
        self.assertEqual((workers.overdue, workers.abort_worker(second, gone)), ({}, False))

    def test_several_times(self) -> None:
        """A coroutine may wait as often as it likes, also for what has fired or failed."""

        async def method() -> Any:
            first = await succeed(1)
            try:
                await fail(KeyError("k"))
            except KeyError:
                pass
            return first + await waiting

        waiting: Deferred[int] = Deferred()
        self.spawn("run", lambda service: method())
        waiting.callback(2)
        self.assertEqual(self.handled, [(3, None)])

    def test_hooks(self) -> None:
        """Every hook may wait, and handle_result; what get_dependency waits for is what is injected."""
        names = ["get_one", "setup_two", "result_one", "teardown_one"]
        waiting: dict[str, Deferred[Any]] = {name: Deferred() for name in names}
        handled: Deferred[Any] = Deferred()
        self.spawn(
            "run",
            lambda service: service.one,
            handle_result=lambda ctx, result, exc_info: handled.addCallback(lambda _: (result, exc_info)),
            **{name: lambda deferred=deferred: deferred for name, deferred in waiting.items()},
        )
        self.assertEqual(self.hooks(), ["get one"])
        waiting["get_one"].callback("injected")
        self.assertEqual(self.hooks()[-1], "setup two")
        waiting["setup_two"].callback(None)
        handled.callback(None)
        self.assertEqual(self.calls[-1], ("result", "one", "injected", None))
        waiting["result_one"].callback(None)
        self.assertEqual(self.hooks()[-1], "teardown one")
        waiting["teardown_one"].callback(None)
        self.assertEqual(self.over, [("injected", None)])

    def test_setup_comes_first(self) -> None:
        """The method is called when every setup has ended, and not when one that waits fails."""
        for hook in ("setup_one", "setup_two"):
            for ends in (True, False):
                waiting: Deferred[None] = Deferred()
                called: list[str] = []
                setup = {hook: lambda waiting=waiting: waiting}
                self.spawn("run", lambda service, called=called: called.append("method"), **setup)
                self.assertEqual(called, [])
                waiting.callback(None) if ends else waiting.errback(KeyError())
                self.assertEqual(called, ["method"] if ends else [])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_turns(self) -> None:
        """No more than max_workers run; the others wait for their turn, in order, and block nobody."""
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(5)]
        for each in waiting:
            self.spawn("wait", each)
        self.assertEqual(self.hooks().count("get one"), 3)
        waiting[1].callback("b")
        self.assertEqual(self.hooks().count("get one"), 4)
        for each in (waiting[0], *waiting[2:]):
            each.callback(None)
        self.assertEqual(len(self.over), 5)

    def test_none_queued(self) -> None:
        """Whoever wants to know is told when the last that waited for its turn has begun, and not before."""
        told: list[int] = []
        self.container.workers.on_none_queued.append(lambda: told.append(len(self.hooks())))
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(5)]
        for each in waiting:
            self.spawn("wait", each)
        waiting[0].callback(None)
        self.assertEqual(told, [])
        waiting[1].callback(None)
        self.assertEqual(told, [len(self.hooks())])
        for each in waiting[2:]:
            each.callback(None)
        self.assertEqual(len(told), 1)

    def test_many_turns(self) -> None:
        """Thousands that wait for their turn and then for nothing else are not a recursion."""
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
        for each in waiting:
            self.spawn("wait", each)
        for _ in range(3000):
            self.spawn("run", lambda service: None)
        self.assertEqual(self.over, [])
        waiting[0].callback(None)
        self.assertEqual(len(self.over), 3001)
        waiting[1].callback(None)
        waiting[2].callback(None)


class Alone(SynchronousTestCase):
    """Workers without a container."""

    def test_without_dependencies(self) -> None:
        """They need not learn of any."""

        class Plain:
            name = "plain"

            def method(self) -> None:
                ended.append("method")

        ended: list[str] = []
        entrypoint = Entrypoint()
        entrypoint.method_name = "method"
        workers = Workers(Plain, 1, Clock())
        workers.on_ended.append(lambda worker, result, exc_info: ended.append("ended"))
        workers.spawn(WorkerContext(self, None, entrypoint))
        self.assertEqual(ended, ["method", "ended"])

    def test_too_late(self) -> None:
        """A call is given up when the method will take longer, by its mean and twice its deviation, than is left."""
        workers = Workers(type("Plain", (), {"name": "plain"}), 1, Clock())
        entrypoint = Entrypoint()
        workers.busy.took[entrypoint] = 1.0, 0.25
        outcomes: list[str] = []
        for patience in (1.4, 1.6, FOREVER):
            workers.wait(entrypoint, partial(outcomes.append, "begun"), patience, partial(outcomes.append, "given up"))
            workers.begin_queued()
        self.assertEqual(outcomes, ["given up", "begun", "begun"])

    def test_one_context(self) -> None:
        """All steps of a method are in one context: what it sets before it waits can be reset when it goes on."""
        waiting: Deferred[None] = Deferred()
        found: list[str] = []

        class Sets:
            name = "sets"

            @Entrypoint.decorator
            async def run(self) -> None:
                token = variable.set("set")
                await waiting
                found.append(variable.get())
                variable.reset(token)
                found.append(variable.get())

        before = variable.get()
        container = ServiceContainer(Sets, {}, clock=Clock())
        container.spawn_worker(container.entrypoints[0], (), {})
        waiting.callback(None)
        self.assertEqual((found, variable.get()), (["set", before], before))

    def test_thrown_away(self) -> None:
        """The rest of a life that Python throws away ends with it."""

        async def live() -> None:
            await waiting

        waiting: Deferred[None] = Deferred()
        life = live()
        rest = go_on(life, life.send(None), copy_context().run)
        next(rest)
        rest.close()
        self.assertRaises(RuntimeError, life.send, None)  # it is over

    def test_logged(self) -> None:
        """An error is logged in a form that can be shown, with its own traceback."""
        plain, huge = KeyError("k"), KeyError(hostile.bomb())
        for error in (plain, huge):
            try:
                raise error
            except KeyError:
                pass
            failure = failure_of(error)
            self.assertEqual((failure.value is error, failure.tb), (error is plain, error.__traceback__))
            self.assertLess(len(failure.getTraceback()), 1000)
            self.assertIn("KeyError", failure.getTraceback())
