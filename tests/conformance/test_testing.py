"""Testing helpers and utilities: lines 70 and 71."""

from __future__ import annotations

from copy import deepcopy
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.conformance.cases import Case
from txservices.containers import ServiceContainer
from txservices.contextdata import Language
from txservices.events import event_handler
from txservices.exceptions import ExtensionNotFound
from txservices.extensions import DependencyProvider
from txservices.rpc import Rpc, RpcProxy, rpc
from txservices.runners import ServiceRunner
from txservices.standalone.events import event_dispatcher
from txservices.testing.services import (
    dummy,
    entrypoint_hook,
    entrypoint_waiter,
    once,
    replace_dependencies,
    restrict_entrypoints,
    worker_factory,
)
from txservices.testing.utils import (
    AnyInstanceOf,
    assert_stops_raising,
    get_container,
    get_extension,
    unpack_mock_call,
    wait_for_call,
)
from txservices.testing.waiting import Heard
from txservices.utils import get_redacted_args, import_from_path, sanitize_url
from txservices.utils.retry import retry

CARD = {"number": "4111", "owner": {"name": "n"}, "past": [{"id": 1}, {"id": 2}]}
HIDDEN = "********"

# sensitive_arguments, and what is shown of method(CARD, b="secret")
REDACTED: list[tuple[Any, dict[str, Any]]] = [
    ((), {"a": CARD, "b": "secret"}),
    ("b", {"a": CARD, "b": HIDDEN}),
    (("a", "b"), {"a": HIDDEN, "b": HIDDEN}),
    ("a.number", {"a": {**CARD, "number": HIDDEN}, "b": "secret"}),
    ("a.owner.name", {"a": {**CARD, "owner": {"name": HIDDEN}}, "b": "secret"}),
    ("a.past[0]", {"a": {**CARD, "past": [HIDDEN, {"id": 2}]}, "b": "secret"}),
    ("a.past[1].id", {"a": {**CARD, "past": [{"id": 1}, {"id": HIDDEN}]}, "b": "secret"}),
    (("a.nothing", "a.past[9]", "b.x", "c"), {"a": CARD, "b": "secret"}),
]


class Steps(DependencyProvider):
    """A worker's setup and teardown, which the test may have wait."""

    def __init__(self, teardown: Deferred[None] | None = None) -> None:
        self.teardown = teardown

    def get_dependency(self, worker_ctx):
        return self

    def worker_teardown(self, worker_ctx):
        return self.teardown


class Service:
    """The service that the helpers are tried on."""

    name = "service"
    other = RpcProxy("other")
    steps = Steps()
    language = Language()

    @rpc
    def method(self, value):
        if value is None:
            raise ValueError("why")
        return [value, self.language]

    @rpc
    async def relay(self, value):
        return await self.other.method(value)

    @event_handler("source", "type")
    def hear(self, value):
        return self.method(value)

    @dummy
    def only_for_tests(self):
        return "called"


class Helpers(Case):
    """Line 70. What waits gives a Deferred, or is an ``async with``."""

    async def running(self, service: type = Service) -> ServiceContainer:
        container = ServiceContainer(service, self.config)
        replace_dependencies(container, "other")
        self.addCleanup(container.stop)
        await container.start()
        return container

    async def tell(self, *values: Any) -> None:
        async with event_dispatcher(self.config) as dispatch:
            for value in values:
                await dispatch("source", "type", value)

    async def test_line_70_hook(self) -> None:
        """A hook runs the method in a worker with its context; results and errors are the method's own."""
        container = await self.running()
        with entrypoint_hook(container, "method", {"language": "da"}) as method:
            self.assertEqual(await method((1,)), [(1,), "da"])  # a tuple: nothing was serialized
            with self.assertRaises(ValueError):
                await method(None)
            with self.assertRaises(TypeError):
                await method()
        with entrypoint_hook(container, "only_for_tests") as call:
            self.assertEqual(await call(), "called")
        with self.assertRaises(ExtensionNotFound), entrypoint_hook(container, "nothing"):
            pass
        self.flushLoggedErrors(ValueError, TypeError)

    async def test_line_70_hook_of_a_container_that_dies(self) -> None:
        """A hook's call fails with what its container died of."""

        class Slow(Service):
            @rpc
            def method(self, value):
                return Deferred(lambda cancelled: None)

        container = await self.running(Slow)
        with entrypoint_hook(container, "method") as method:
            call = method(1)
            container.kill(ZeroDivisionError("why"))
            with self.assertRaises(ZeroDivisionError):
                await call

    async def test_line_70_waiter(self) -> None:
        """A waiter ends with the worker's result or error, and gives nothing before."""
        container = await self.running()
        async with entrypoint_waiter(container, "hear") as waited:
            self.assertRaises(waited.NotReady, waited.get)
            await self.tell(1)
        self.assertEqual(waited.get(), [1, None])
        async with entrypoint_waiter(container, "hear") as waited:
            await self.tell(None)
        self.assertRaises(ValueError, waited.get)
        self.flushLoggedErrors(ValueError)
        with self.assertRaises(RuntimeError):
            entrypoint_waiter(container, "nothing")

    async def test_line_70_waiter_callback_and_nested(self) -> None:
        """A callback says which worker is waited for; waiters may be inside each other."""
        container = await self.running()
        seen: list[Any] = []

        def third(worker_ctx: Any, result: Any, exc_info: Any) -> bool:
            seen.append((worker_ctx.entrypoint.method_name, result, exc_info))
            return bool(result[0] == 3)

        async with entrypoint_waiter(container, "hear", callback=third) as outer:  # noqa: SIM117
            async with entrypoint_waiter(container, "hear") as inner:
                await self.tell(1, 2, 3)
        self.assertEqual((outer.get()[0], inner.get()[0]), (3, 1))
        self.assertEqual([result[0] for _, result, _ in seen], [1, 2, 3])

    async def test_line_70_waiter_timeout(self) -> None:
        """A waiter's time is up with nameko's words."""
        container = await self.running()
        with self.assertRaises(entrypoint_waiter.Timeout) as raised:
            async with entrypoint_waiter(container, "hear", timeout=0.01):
                pass
        self.assertEqual(str(raised.exception), "Timeout on service.hear after 0.01 seconds")

    async def test_line_70_waiter_and_teardown(self) -> None:
        """A waiter does not end before that worker's teardown has."""
        teardown: Deferred[None] = Deferred()

        class Slow(Service):
            steps = Steps(teardown)

        container = await self.running(Slow)
        ended: list[Any] = []

        async def wait() -> None:
            async with entrypoint_waiter(container, "hear") as waited:
                await self.tell(1)
            ended.append(waited.get()[0])

        waiting = Deferred.fromCoroutine(wait())
        async with entrypoint_waiter(container, "method"):
            teardown_of_another = (await self.cluster()).service.method(2)  # its worker waits there as well
            self.assertEqual(await teardown_of_another, [2, None])
            self.assertEqual(ended, [])
            teardown.callback(None)
        await waiting
        self.assertEqual(ended, [1])

    async def test_line_70_worker_factory(self) -> None:
        """An instance with doubles for what isn't given; a double of a proxy gives Deferreds, as the proxy does."""
        given = object()
        service = worker_factory(Service, steps=given)
        self.assertIs(service.steps, given)
        service.other.method.return_value = 3
        self.assertEqual(await service.relay(1), 3)
        service.other.method.assert_called_once_with(1)
        with self.assertRaises(ExtensionNotFound):
            worker_factory(Service, nothing=1)

    async def test_line_70_replace_dependencies(self) -> None:
        """Doubles by name, replacements by keyword. A missing name, a name given twice, and a late call are refused.

        What was inside a replaced dependency does not start, where nameko's still connects.
        """
        container = ServiceContainer(Service, self.config)
        with self.assertRaises(ExtensionNotFound):
            replace_dependencies(container, "nothing")
        with self.assertRaises(RuntimeError):
            replace_dependencies(container, "other", other=1)
        other, steps = replace_dependencies(container, "other", "steps")
        replace_dependencies(container, language="replaced")
        self.addCleanup(container.stop)
        await container.start()
        self.assertFalse([name for name in self.vhost.queues if name.startswith("rpc.reply-service-")])
        other.method.return_value = "double"
        service = (await self.cluster()).service
        self.assertEqual([await service.relay(1), await service.method(2)], ["double", [2, "replaced"]])
        self.assertFalse(steps.called)
        with self.assertRaises(RuntimeError):
            replace_dependencies(container, "other")

    async def test_line_70_restrict_entrypoints(self) -> None:
        """Only named entrypoints fire; a missing name and a late call are refused."""
        container = ServiceContainer(Service, self.config)
        with self.assertRaises(ExtensionNotFound):
            restrict_entrypoints(container, "nothing")
        restrict_entrypoints(container, "hear")
        self.addCleanup(container.stop)
        await container.start()
        self.assertNotIn("rpc-service", self.vhost.queues)  # nameko's consumer still declares it
        async with entrypoint_waiter(container, "hear") as waited:
            await self.tell(1)
        self.assertEqual(waited.get(), [1, None])
        with self.assertRaises(RuntimeError):
            restrict_entrypoints(container, "hear")

    async def test_line_70_once_and_the_rest(self) -> None:
        """``once`` fires at the start; extensions and containers are found; calls of a mock are waited for."""
        mock = Mock()

        class Starting(Service):
            @once("argument", key=1)
            def begin(self, *args, **kwargs):
                mock(*args, **kwargs)

        runner = ServiceRunner(self.config)
        container = runner.add_service(Starting)
        replace_dependencies(container, "other")
        self.addCleanup(runner.stop)
        await runner.start()
        self.assertEqual(unpack_mock_call((await wait_for_call(1, mock)).call_args), (("argument",), {"key": 1}))
        self.assertIs(get_container(runner, Starting), container)
        self.assertIsNone(get_container(runner, Service))
        self.assertEqual(get_extension(container, Language).attr_name, "language")
        self.assertIsNone(get_extension(container, Rpc, method_name="nothing"))
        attempts = iter([ValueError, ValueError, None])

        def fails_twice() -> None:
            error = next(attempts)
            if error is not None:
                raise error

        await assert_stops_raising(fails_twice, ValueError, interval=0.001)
        self.assertEqual([1, "x"], [AnyInstanceOf(int), AnyInstanceOf(str)])


class Utilities(Case):
    """Line 71."""

    async def test_line_71_redaction(self) -> None:
        """Arguments named in ``sensitive_arguments`` are hidden, and the arguments themselves stay as they are."""
        for sensitive, shown in REDACTED:
            heard = Heard()

            class Redacting(DependencyProvider):
                def __init__(self, heard: Heard) -> None:
                    self.heard = heard

                def worker_setup(self, worker_ctx):
                    args = get_redacted_args(worker_ctx.entrypoint, *worker_ctx.args, **worker_ctx.kwargs)
                    self.heard((args, deepcopy(worker_ctx.args)))

            class Service:
                name = "service"
                redacting = Redacting(heard)

                @rpc(sensitive_arguments=sensitive)
                def method(self, a, b=None):
                    return [a, b]

            (container,) = await self.start(Service)
            value = await (await self.cluster()).service.method(CARD, b="secret")
            self.assertEqual(value, [CARD, "secret"], sensitive)
            self.assertEqual(heard.things, [(shown, [CARD])], sensitive)
            await container.stop()


class Names(TestCase):
    """Line 71."""

    def test_line_71_retry(self) -> None:
        """``max_attempts`` more calls, ``delay`` apart, which grows by ``backoff`` up to ``max_delay``.

        Each call begins with the delay as it was declared; nameko's goes on with that of the call before.
        """
        clock, called = Clock(), []

        @retry(for_exceptions=(KeyError, ValueError), max_attempts=4, delay=1, backoff=2, max_delay=6, clock=clock)
        async def fail() -> None:
            called.append(clock.seconds())
            raise ValueError("again")

        for begin in (0, 100):
            clock.rightNow, called[:] = begin, []
            failing = fail()
            clock.pump([0.5] * 50)
            self.failureResultOf(failing, ValueError)
            self.assertEqual([when - begin for when in called], [0, 2, 6, 12, 18])

    def test_line_71_urls(self) -> None:
        """No password is left in an address."""
        for url, shown in (
            ("amqp://u:secret@h:5672/v", "amqp://u:********@h:5672/v"),
            ("amqp://u@h/", "amqp://u@h/"),
            ("http://h/path", "http://h/path"),
        ):
            self.assertEqual(sanitize_url(url), shown)

    def test_line_71_import_from_path(self) -> None:
        """None for None, ImportError for what isn't there."""
        self.assertIsNone(import_from_path(None))
        self.assertIs(import_from_path("txservices.rpc.rpc"), rpc)
        for path in ("txservices.rpc.nothing", "nowhere.at_all"):
            self.assertRaises(ImportError, import_from_path, path)
