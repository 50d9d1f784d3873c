"""Workers, containers, extensions, runners and timers: lines 49 to 60."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel
from twisted.trial.unittest import TestCase

from tests.conformance.cases import Case
from tests.services import Heard
from txservices.containers import ServiceContainer
from txservices.contextdata import AuthToken, ContextDataProvider, Language, UserAgent, UserId
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ContainerBeingKilled, RemoteError
from txservices.extensions import DependencyProvider, Entrypoint, Extension, SharedExtension
from txservices.rpc import RpcProxy, rpc
from txservices.runners import ServiceRunner
from txservices.timer import timer

hook = Entrypoint.decorator


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
            for stop in self.stops:
                await stop()

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


class Noting(Extension):
    """Notes what is called, and does what the test put into the configuration for it."""

    def note(self, step: str) -> Any:
        config = self.container.config
        config["steps"].append(f"{type(self).__name__}.{step}")
        return config.get(config["steps"][-1], lambda: None)()

    def setup(self):
        return self.note("setup")

    def start(self):
        return self.note("start")

    def stop(self):
        return self.note("stop")

    def kill(self):
        return self.note("kill")


class Shared(Noting, SharedExtension):
    """Is inside the two others."""


class Dependency(Noting, DependencyProvider):
    """Notes a worker's life too."""

    shared = Shared()

    def get_dependency(self, worker_ctx):
        return self.note("get_dependency")

    def worker_setup(self, worker_ctx):
        return self.note("worker_setup")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        return self.note("worker_result")

    def worker_teardown(self, worker_ctx):
        return self.note("worker_teardown")


class Fires(Noting, Entrypoint):
    """Fires when a test says so."""

    shared = Shared()


class Service:
    """A service of those."""

    name = "service"
    dependency = Dependency()

    @Fires.decorator
    def method(self, does):
        return does()


class ContainerCase(TestCase):
    """A container on a clock of the test's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.steps: list[str] = []
        self.config: dict[str, Any] = {"steps": self.steps, "max_workers": 1, "SHUTDOWN_TIMEOUT": 5}
        self.container = ServiceContainer(Service, self.config, clock=self.clock)
        self.handled: list[Any] = []

    def begin(self) -> None:
        self.successResultOf(self.container.start())
        self.steps.clear()

    def spawn(self, does: Any) -> None:
        def handle_result(worker_ctx: Any, result: Any, exc_info: Any) -> Any:
            self.steps.append("handle_result")
            self.handled.append(exc_info[0] if exc_info else result)
            return result, exc_info

        self.container.spawn_worker(self.container.entrypoints[0], (does,), {}, {}, handle_result)


class Life(ContainerCase):
    """Lines 51 to 54."""

    def test_line_51_order(self) -> None:
        """All are set up before any starts; entrypoints stop, then workers, dependencies, shared ones; and a worker's
        life is in nameko's order."""
        waiting: Deferred[None] = Deferred()
        self.config["Dependency.setup"] = lambda: waiting
        starting = self.container.start()
        self.assertEqual(sorted(self.steps), ["Dependency.setup", "Fires.setup", "Shared.setup"])
        waiting.callback(None)
        self.successResultOf(starting)
        self.assertEqual(sorted(self.steps[3:]), ["Dependency.start", "Fires.start", "Shared.start"])
        self.steps.clear()
        answer: Deferred[Any] = Deferred()
        self.spawn(lambda: answer)
        stopping = self.container.stop()
        answer.callback("result")
        self.successResultOf(stopping)
        before = ["Dependency.get_dependency", "Dependency.worker_setup"]
        after = ["Dependency.worker_result", "Dependency.worker_teardown"]
        self.assertEqual(
            self.steps,
            [*before, "Fires.stop", "handle_result", *after, "Dependency.stop", "Shared.stop"],
        )

    def test_line_52_max_workers(self) -> None:
        """Over max_workers a worker waits; a stop waits for both, and a kill cancels what runs and drops what waits.

        nameko blocks whoever spawns; here nobody can be blocked, and the worker waits in the container.
        """
        self.begin()
        answers: list[Deferred[Any]] = [Deferred(), Deferred()]
        began: list[int] = []
        for number, answer in enumerate(answers):
            self.spawn(lambda n=number, a=answer: began.append(n) or a)
        self.assertEqual(began, [0])
        stopping = self.container.stop()
        answers[0].callback("first")
        self.assertEqual(began, [0, 1])
        self.assertNoResult(stopping)
        answers[1].callback("second")
        self.successResultOf(stopping)
        self.assertEqual(self.handled, ["first", "second"])

    def test_line_52_kill(self) -> None:
        """A kill cancels what runs; its entrypoint is told nothing, and its dependencies are torn down.

        nameko tears nothing down.
        """
        self.begin()
        cancelled: list[Any] = []
        self.spawn(lambda: Deferred(cancelled.append))
        self.spawn(lambda: cancelled.append("never"))
        self.successResultOf(self.container.kill())
        self.assertEqual((len(cancelled), self.handled), (1, []))
        self.assertIn("Dependency.worker_teardown", self.steps)
        self.assertNotIn("Dependency.worker_result", self.steps)
        with self.assertRaises(ContainerBeingKilled):
            self.spawn(lambda: None)

    def test_line_53_managed_work(self) -> None:
        """An error in background work kills the container, once, and is that of ``wait``; a bad kill blocks nobody."""
        self.begin()
        self.config["Dependency.kill"] = lambda: 1 // 0
        works: list[Deferred[None]] = [Deferred(), Deferred()]
        for work in works:
            self.container.spawn_managed(lambda work=work: work)
        ended = self.container.wait()
        works[0].errback(ValueError("why"))
        self.failureResultOf(ended, ValueError)
        self.failureResultOf(self.container.wait(), ValueError)
        self.assertEqual(sorted(self.steps), ["Dependency.kill", "Fires.kill", "Shared.kill"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        works[1].addErrback(lambda failure: failure.trap(CancelledError))

    def test_line_54_ends_of_ends(self) -> None:
        """A stop after a stop, a kill after a stop, a kill too late: each fires, and nothing is done twice."""
        self.begin()
        self.successResultOf(self.container.stop())
        once = list(self.steps)
        self.successResultOf(self.container.stop())
        self.successResultOf(self.container.kill(ValueError("too late")))
        self.successResultOf(self.container.wait())
        self.assertEqual(self.steps, once)

    def test_line_54_stop_while_killed(self) -> None:
        """A stop during a kill waits for its end, and a kill during a stop does not wait for workers."""
        self.begin()
        waiting: Deferred[None] = Deferred()
        self.config["Fires.kill"] = lambda: waiting
        self.spawn(lambda: Deferred())
        stopping = self.container.stop()
        killing = self.container.kill()
        stopping_again = self.container.stop()
        for each in (stopping, killing, stopping_again):
            self.assertNoResult(each)
        waiting.callback(None)
        for each in (stopping, killing, stopping_again):
            self.successResultOf(each)


class Errors(ContainerCase):
    """Lines 55 and 56."""

    def test_line_55_errors_of_hooks(self) -> None:
        """An error in a dependency's hook is that worker's error, and what was injected is torn down.

        nameko's container dies of it, and the process with that.
        """
        self.begin()
        for step, handled in (
            ("get_dependency", [ZeroDivisionError]),
            ("worker_setup", [ZeroDivisionError]),
            ("worker_result", ["result"]),
            ("worker_teardown", ["result"]),
        ):
            self.steps.clear()
            self.handled.clear()
            self.config[f"Dependency.{step}"] = lambda: 1 // 0
            self.spawn(lambda: "result")
            del self.config[f"Dependency.{step}"]
            self.assertEqual(self.handled, handled, step)
            self.assertEqual("Dependency.worker_teardown" in self.steps, step != "get_dependency")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, step)
        self.spawn(lambda: "alive")
        self.assertEqual(self.handled[-1], "alive")
        self.successResultOf(self.container.stop())

    def test_line_55_runner(self) -> None:
        """When one container dies, the runner stops the others, and its ``wait`` fails with the error."""
        runner = ServiceRunner(self.config, self.clock)
        dying = runner.add_service(type("Dying", (Service,), {"name": "dying"}))
        living = runner.add_service(Service)
        self.successResultOf(runner.start())
        self.steps.clear()
        ended = runner.wait()
        work: Deferred[None] = Deferred()
        dying.spawn_managed(lambda: work)
        work.errback(ValueError("why"))
        self.failureResultOf(ended, ValueError)
        self.assertTrue(living.stopped)
        self.assertEqual((self.steps.count("Fires.kill"), self.steps.count("Fires.stop")), (1, 1))


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
        self.stops.append(container.kill)
        entrypoints = {each.method_name: each for each in container.entrypoints}
        entrypoints["tick"].start()  # it alone: the broker's replies would need the other clock
        clock.pump([1, 1])
        for number in range(2):
            container.spawn_worker(entrypoints["call"], (number,), {})
        self.assertEqual([line.partition(" handling worker ")[0] for line in warnings.things], ["(expected) error"] * 2)
        self.assertRegex(warnings.things[0], r"<WorkerContext \[failing\.tick\] at .*ZeroDivisionError")
        self.assertEqual([line.partition(" handling worker ")[0] for line in errors.things], ["error"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError, LookupError)), 2)


class Keyed(SharedExtension):
    """One for each key."""

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def sharing_key(self):
        return Keyed, self.key


class Options(Entrypoint):
    """Takes arguments, and has an extension that depends on them."""

    def __init__(self, key, times=1, **kwargs):
        super().__init__(**kwargs)
        self.times = times
        self.keyed = Keyed(key)


class Extensions(TestCase):
    """Lines 57 and 58."""

    def test_line_57_bind(self) -> None:
        """A prototype stays as it was; what is bound is a new one, with all inside it, and can't be bound again."""

        class Service:
            name = "service"
            dependency = Dependency()

            @Options.decorator("one", times=2)
            def first(self): ...

            @Options.decorator("one")
            @Fires.decorator
            def second(self): ...

            @Options.decorator("two")
            def third(self): ...

        one, two = ServiceContainer(Service, {}), ServiceContainer(Service, {})
        self.assertFalse(Service.dependency.is_bound() or Service.dependency.shared.is_bound())
        self.assertFalse(hasattr(Service.dependency, "container"))
        bound = one.dependencies[0]
        self.assertTrue(bound.is_bound() and bound.shared.is_bound())
        self.assertIs(bound.container, one)
        self.assertIsNot(bound, two.dependencies[0])
        self.assertEqual(str(self.assertRaises(RuntimeError, bound.bind, two)), "Cannot `bind` a bound extension.")
        options = {each.method_name: each for each in one.entrypoints if isinstance(each, Options)}
        fires = next(each for each in one.entrypoints if isinstance(each, Fires))
        self.assertEqual([options[name].times for name in ("first", "second", "third")], [2, 1, 1])
        self.assertIs(fires.shared, bound.shared)
        self.assertIsNot(bound.shared, two.dependencies[0].shared)
        self.assertIs(options["first"].keyed, options["second"].keyed)
        self.assertIsNot(options["first"].keyed, options["third"].keyed)

    def test_line_58_decorators(self) -> None:
        """Bare, with parentheses, with arguments and with keywords; the function stays what it is."""

        class Service:
            name = "service"

            @hook
            def bare(self, value):
                return value

            @hook()
            def called(self, value):
                return value

            @Options.decorator("key", 3)
            def positional(self, value):
                return value

            @hook(expected_exceptions=ValueError, sensitive_arguments="value")
            def keywords(self, value):
                return value

        container = ServiceContainer(Service, {})
        found = {each.method_name: each for each in container.entrypoints}
        self.assertEqual(sorted(found), ["bare", "called", "keywords", "positional"])
        self.assertEqual(found["positional"].times, 3)
        self.assertEqual(found["keywords"].expected_exceptions, (ValueError,))
        service = Service()
        self.assertEqual([getattr(service, name)(name) for name in found], list(found))


class Runners(Case):
    """Line 59."""

    async def test_line_59_several_runners(self) -> None:
        """A class that is added twice runs once; runners beside each other share the work."""
        ran = Heard()

        class Service:
            name = "service"

            class Where(DependencyProvider):
                def get_dependency(self, worker_ctx):
                    return worker_ctx.container

            where = Where()

            @rpc
            def method(self):
                ran(self.where)

        runners = [ServiceRunner(self.config) for _ in range(2)]
        for runner in runners:
            runner.add_service(Service)
            runner.add_service(Service)
            self.assertEqual((runner.service_names, len(runner.containers)), (["service"], 1))
            self.stops.append(runner.stop)
            await runner.start()
        service = (await self.cluster()).service
        await gatherResults([service.method() for _ in range(4)])
        self.assertEqual(set(ran.things), {runner.containers[0] for runner in runners})

    async def test_line_59_a_container_that_dies(self) -> None:
        """One runner's death is not the other's: its calls are done there."""

        class Service:
            name = "service"

            @rpc
            def method(self):
                return "done"

        runners = [ServiceRunner(self.config) for _ in range(2)]
        for runner in runners:
            runner.add_service(Service)
            self.stops.append(runner.stop)
            await runner.start()
        await runners[0].kill()
        service = (await self.cluster()).service
        self.assertEqual(await gatherResults([service.method() for _ in range(4)]), ["done"] * 4)


# eager, interval, seconds that a tick takes -> when ticks begin, within five seconds
TICKS: list[tuple[bool, float, float, list[float]]] = [
    (False, 1, 0, [1, 2, 3, 4, 5]),
    (True, 1, 0, [0, 1, 2, 3, 4, 5]),
    (False, 2, 0, [2, 4]),
    (False, 1, 0.5, [1, 2, 3, 4, 5]),
    (True, 1, 0.5, [0, 1, 2, 3, 4, 5]),
    (False, 1, 1.5, [1, 3, 5]),
    (True, 1, 1.5, [0, 2, 4]),
    (True, 1, 2.5, [0, 3]),
    (True, 0.5, 1.25, [0, 1.5, 3, 4.5]),
    (False, 5.5, 0, []),
]


class Timers(TestCase):
    """Line 60."""

    def run_timer(self, clock: Clock, does: Any, **options: Any) -> tuple[ServiceContainer, list[float]]:
        began: list[float] = []

        class Ticking:
            name = "ticking"

            @timer(**options)
            def tick(self):
                began.append(clock.seconds())
                return does()

        container = ServiceContainer(Ticking, {}, clock=clock)
        self.successResultOf(container.start())
        return container, began

    def test_line_60_table(self) -> None:
        """When ticks begin, by eagerness, interval and how long they take.

        nameko makes up for missed ticks in a burst; here they are left out, and the next one is on time.
        """
        for eager, interval, takes, expected in TICKS:
            clock = Clock()

            def does(clock: Clock = clock, takes: float = takes) -> Any:
                return deferLater(clock, takes) if takes else None

            container, began = self.run_timer(clock, does, interval=interval, eager=eager)
            clock.pump([0.25] * 20)
            self.assertEqual(began, expected, (eager, interval, takes))
            stopping = container.stop()
            clock.pump([0.25] * 12)
            self.successResultOf(stopping)
            self.assertEqual((began, clock.getDelayedCalls()), (expected, []))

    def test_line_60_kill_and_errors(self) -> None:
        """Errors don't end it; stopped while it sleeps it ends at once; killed with a tick running, too."""
        clock = Clock()
        container, began = self.run_timer(clock, lambda: 1 // 0, interval=1)
        clock.pump([1, 1])
        self.assertEqual((began, len(self.flushLoggedErrors(ZeroDivisionError))), ([1, 2], 2))
        self.successResultOf(container.stop())
        cancelled: list[Any] = []
        container, _ = self.run_timer(clock, lambda: Deferred(cancelled.append), interval=1, eager=True)
        self.successResultOf(container.kill())
        self.assertEqual((len(cancelled), clock.getDelayedCalls()), (1, []))


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
