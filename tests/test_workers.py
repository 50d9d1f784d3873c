"""A worker's life: what is called in which order, what waits, what fails, and how it ends."""

from __future__ import annotations

import gc
from contextvars import copy_context
from functools import partial
from typing import Any
from unittest import mock

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests import hostile
from tests.recording import Case, Service, variable
from txservices import workers as workers_module
from txservices.callids import this_worker
from txservices.containers import ServiceContainer, WorkerContext
from txservices.exceptions import CallerGone
from txservices.extensions import Entrypoint
from txservices.utils.life import State
from txservices.workers import FOREVER, Workers, failure_of, go_on


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


class Failing(Case):
    """Errors: whose they are, and what goes on."""

    def test_method(self) -> None:
        """An exception is logged, told, and the dependencies see it."""
        self.spawn("run", lambda service: 1 // 0)
        ((_, exc_info),) = self.handled
        self.assertEqual(exc_info[0], ZeroDivisionError)
        self.assertIs(exc_info[1].__traceback__, exc_info[2])
        self.assertIn(("result", "two", None, ZeroDivisionError), self.calls)
        self.assertEqual(self.hooks()[-1], "teardown two")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_waiting_method(self) -> None:
        """So is one that comes later."""
        waiting: Deferred[Any] = Deferred()
        self.spawn("wait", waiting)
        waiting.errback(ValueError("late"))
        self.assertEqual(self.handled[0][1][0], ValueError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_expected(self) -> None:
        """An expected exception is a warning in the log, and an error at the caller."""
        self.spawn("wait", fail(KeyError("k")))
        self.assertEqual(self.handled[0][1][0], KeyError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_exits(self) -> None:
        """SystemExit and its like end the call and nothing more, now or later."""
        for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
            for method in ("run", "wait"):
                deferred: Deferred[Any] = Deferred()

                def does(service: Any, error: BaseException = error) -> Any:
                    raise error

                if method == "run":
                    self.spawn("run", does)
                    self.assertIs(self.handled.pop()[1][1], error)
                elif not isinstance(error, GeneratorExit):
                    self.spawn("wait", deferred)
                    deferred.errback(error)
                    self.assertIs(self.handled.pop()[1][1], error)
        self.assertEqual(len(self.flushLoggedErrors()), 5)

    def test_get_dependency(self) -> None:
        """Without its dependencies the method is not run; what was injected is torn down."""
        self.spawn("run", lambda service: self.fail("was run"), get_two=lambda: 1 // 0)
        self.assertEqual(self.hooks(), ["get one", "get two", "handle None", "result one", "teardown one"])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_setup(self) -> None:
        """The same for an error in worker_setup; all are injected by then, and all are torn down."""
        self.spawn("run", lambda service: self.fail("was run"), setup_one=lambda: 1 // 0)
        self.assertEqual(self.handled[0][1][0], ZeroDivisionError)
        self.assertEqual(self.hooks()[-2:], ["teardown one", "teardown two"])
        self.assertNotIn("setup two", self.hooks())
        self.flushLoggedErrors(ZeroDivisionError)

    def test_constructor(self) -> None:
        """A service class whose instances can't be made fails its workers, not the container."""
        with mock.patch.object(Service, "__init__", side_effect=ValueError("no")):
            self.spawn("run", lambda service: None)
        self.assertEqual(self.handled[0][1][0], ValueError)
        self.flushLoggedErrors(ValueError)

    def test_result_and_teardown(self) -> None:
        """Errors in worker_result and worker_teardown are logged, and the other dependencies have their turn."""
        self.spawn("run", lambda service: 7, result_one=lambda: 1 // 0, teardown_one=lambda: fail(KeyError()))
        self.assertEqual(self.hooks()[-4:], ["result one", "result two", "teardown one", "teardown two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 2)
        self.assertIsNot(self.container.life.state, State.KILLED)
        self.spawn("run", lambda service: 8)
        self.assertEqual(self.over, [(7, None), (8, None)])

    def test_handle_result(self) -> None:
        """An error in the entrypoint's handle_result is what the dependencies see."""
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: 1 // 0)
        self.assertIn(("result", "one", None, ZeroDivisionError), self.calls)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_not_handled(self) -> None:
        """An entrypoint whose handle_result fails is told, with the error: it settles what it answers for."""
        told: list[Any] = []
        entrypoint = self.container.entrypoints[0]
        for fails in (lambda: 1 // 0, lambda: fail(ZeroDivisionError())):
            entrypoint.result_not_handled = lambda worker, exc_info: told.append((worker, exc_info[0]))
            worker = self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info, way=fails: way())
            self.assertEqual(told.pop(), (worker, ZeroDivisionError))
            self.assertEqual(len(self.over.pop()), 2)
        entrypoint.result_not_handled = lambda worker, exc_info: told.remove("nothing")
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: 1 // 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)  # whatever it raises, the rest has its turn
        self.assertEqual((len(self.over), self.hooks()[-1]), (1, "teardown two"))
        self.spawn("run", lambda service: 7)
        self.assertEqual(told, [])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_log_says_where(self) -> None:
        """The line of an error in a hook has the hook and the worker in it."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)

        def ended(worker: Any, result: Any, exc_info: Any) -> None:
            raise KeyError("ended")

        self.container.on_worker_ended.insert(0, ended)
        worker = self.spawn(
            "run",
            lambda service: 7,
            handle_result=lambda ctx, result, exc_info: 1 // 0,
            result_one=lambda: 1 // 0,
            teardown_one=lambda: 1 // 0,
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 4)
        lines = [event for event in events if "hook" in event]
        self.assertEqual([event["worker"] for event in lines], [worker] * 4)
        names = ["<lambda>", "worker_result", "worker_teardown", "ended"]
        self.assertEqual([event["hook"].rpartition(".")[2] for event in lines], names)
        self.assertEqual(len(self.over), 1)  # the others are told nevertheless

    def test_cancelled_by_somebody_else(self) -> None:
        """A worker whose Deferred is cancelled has failed, and so has one that fails while it is cancelled by us."""
        waiting: Deferred[None] = Deferred()
        self.spawn("wait", waiting)
        waiting.cancel()
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
        self.assertEqual(len(self.container.workers.pending), 0)
        self.spawn("run", lambda service: 7, teardown_one=lambda: fail(CancelledError()))
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1)
        self.spawn("wait", Deferred(lambda waiting: waiting.errback(Exception("cancelled"))))
        self.spawn("wait", Deferred(), teardown_one=lambda: fail(Exception("torn down")))
        self.container.kill()
        self.assertEqual(len(self.flushLoggedErrors(Exception)), 2)

    def test_known_to_the_log(self) -> None:
        """While a worker runs, the log can ask which one it is."""
        found: list[Any] = []
        worker = self.spawn("run", lambda service: found.append(this_worker.get()))
        self.assertEqual((found, this_worker.get()), ([worker], None))

    def test_disowned(self) -> None:
        """In a forked child no result is handled and no dependency is told of it: the child ends."""
        workers = self.container.workers
        ended: list[str] = []
        self.patch(workers_module, "end", lambda: ended.append("child"))
        self.spawn("run", lambda service: workers.disown())
        self.assertEqual(self.hooks(), ["get one", "get two", "setup one", "setup two"])
        self.assertEqual((ended, self.handled), (["child"], []))
        workers.cancelled = False
        workers.learn(self.container.dependencies)
        self.spawn("run", lambda service: 7, handle_result=lambda *outcome: workers.disown() or outcome[1:])
        self.assertEqual((ended, [each for each in self.hooks() if "result" in each]), (["child"] * 2, []))
        self.assertTrue(workers.threads.cancelled)
        self.assertTrue(workers.threads.disowned)

    def test_discarded(self) -> None:
        """A worker that Python throws away, its Deferred being lost, does not go on."""
        self.container.on_worker_ended.clear()
        self.spawn("wait", Deferred())
        self.container.workers.pending.clear()
        gc.collect()
        begun = ["get one", "get two", "setup one", "setup two"]
        self.assertEqual(self.hooks(), begun)
        self.calls.clear()
        self.spawn("run", lambda service: 7, handle_result=lambda ctx, result, exc_info: Deferred())
        self.container.workers.pending.clear()
        gc.collect()
        self.assertEqual(self.hooks(), begun)


class Context(Case):
    """``WorkerContext``: what travels with a call."""

    def context(self, data: dict[str, Any] | None, **config: Any) -> WorkerContext:
        container = ServiceContainer(Service, config)
        return WorkerContext(container, None, container.entrypoints[0], data=data)

    def test_call_id(self) -> None:
        """It is made when it is asked for, once."""
        worker_ctx = self.context(None)
        self.assertRegex(worker_ctx.call_id, r"^service\.run\.[0-9a-f-]{36}$")
        self.assertEqual(worker_ctx.call_id, worker_ctx.call_id)
        with mock.patch("txservices.extensions.new_call_id", return_value="1"):
            self.assertEqual(self.context(None).call_id, "service.run.1")

    def test_no_parent(self) -> None:
        """A call that nobody made is the origin itself."""
        worker_ctx = self.context({"language": "en"})
        self.assertIsNone(worker_ctx.origin_call_id)
        self.assertIsNone(worker_ctx.immediate_parent_call_id)
        self.assertEqual(worker_ctx.call_id_stack, [worker_ctx.call_id])
        self.assertEqual(worker_ctx.context_data, {"language": "en", "call_id_stack": [worker_ctx.call_id]})

    def test_parents(self) -> None:
        """The stack grows by this call, and the data goes on as it is now."""
        worker_ctx = self.context({"call_id_stack": ["a", "b"], "k": 1})
        self.assertEqual((worker_ctx.origin_call_id, worker_ctx.immediate_parent_call_id), ("a", "b"))
        self.assertEqual(worker_ctx.data, {"k": 1})
        worker_ctx.data["new"] = 2
        self.assertEqual(worker_ctx.context_data, {"k": 1, "new": 2, "call_id_stack": ["a", "b", worker_ctx.call_id]})

    def test_set(self) -> None:
        """A value that is set in the context travels on, and is in the worker's data."""
        worker_ctx = self.context({"k": 1})
        worker_ctx.context_data["auth"] = "token"
        self.assertEqual(worker_ctx.data, {"k": 1, "auth": "token"})
        self.assertEqual(worker_ctx.context_data["auth"], "token")
        self.assertEqual(list(worker_ctx.context_data), ["k", "auth", "call_id_stack"])

    def test_tracked(self) -> None:
        """Only so many parents are kept as are configured."""
        stack = [str(n) for n in range(20)]
        for tracked, kept in ((10, stack[-10:]), (1, ["19"]), (0, [])):
            worker_ctx = self.context({"call_id_stack": list(stack)}, parent_calls_tracked=tracked)
            self.assertEqual(worker_ctx.call_id_stack, [*kept, worker_ctx.call_id])
        worker_ctx = self.context({"call_id_stack": list(stack)})
        self.assertEqual(len(worker_ctx.call_id_stack), 11)

    def test_foreign_stack(self) -> None:
        """A stack that is no list is ignored: it must not stop the message."""
        for stack in ("abc", 1, None, {"a": 1}):
            worker_ctx = self.context({"call_id_stack": stack})
            self.assertEqual(worker_ctx.call_id_stack, [worker_ctx.call_id])

    def test_attributes(self) -> None:
        """It knows its service, and says what it is."""
        worker_ctx = self.context(None, key="value")
        self.assertEqual((worker_ctx.service_name, worker_ctx.config), ("service", {"key": "value"}))
        self.assertRegex(repr(worker_ctx), r"^<WorkerContext \[service\.run\] at 0x[0-9a-f]+>$")
        self.assertFalse(hasattr(worker_ctx, "__dict__"))


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
