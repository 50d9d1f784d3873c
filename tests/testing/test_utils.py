"""Helpers by which tests look for things, wait, and compare."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any
from unittest.mock import Mock, call

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txservices.containers import ServiceContainer
from txservices.dependency_providers import Config
from txservices.extensions import WorkerContext
from txservices.rpc import Rpc, rpc
from txservices.runners import ServiceRunner
from txservices.testing import utils, waiting
from txservices.testing.services import dummy
from txservices.timer import Timer


class Service:
    name = "service"
    config = Config()

    @rpc
    def one(self) -> None: ...

    @rpc
    def two(self) -> None: ...


class LookingTests(SynchronousTestCase):
    """Containers and extensions."""

    def test_get_extension(self) -> None:
        """The first of the class whose attributes fit."""
        container = ServiceContainer(Service, {})
        self.assertEqual(utils.get_extension(container, Rpc, method_name="two").method_name, "two")
        self.assertIs(utils.get_extension(container, Config), container.dependencies[0])
        self.assertIsNone(utils.get_extension(container, Rpc, method_name="three"))
        self.assertIsNone(utils.get_extension(container, Timer))

    def test_get_container(self) -> None:
        """The container of a class, or none."""
        runner = ServiceRunner({})
        container = runner.add_service(Service)
        self.assertIs(utils.get_container(runner, Service), container)
        self.assertIsNone(utils.get_container(runner, Clock))

    def test_values(self) -> None:
        """Values that equal many, and a call in its parts."""
        self.assertEqual([1, "a"], [utils.AnyInstanceOf(int), utils.AnyInstanceOf(str)])
        self.assertNotEqual(1, utils.AnyInstanceOf(str))
        self.assertEqual(repr(utils.AnyInstanceOf(str)), "<AnyInstanceOf-str>")
        self.assertEqual(partial(print), utils.ANY_PARTIAL)
        positional, keyword = unpacked = utils.unpack_mock_call(call(1, b=2))
        self.assertEqual((positional, keyword), ((1,), {"b": 2}))
        self.assertEqual((unpacked.positional, unpacked.keyword), (positional, keyword))

    def test_dummy_provider(self) -> None:
        """An entrypoint without a container, for a worker context of the test's own."""
        container = ServiceContainer(Service, {})
        worker = WorkerContext(container, None, utils.DummyProvider("method"))
        self.assertTrue(worker.call_id.startswith("service.method."))

    def test_find_free_port(self) -> None:
        """The port can be bound."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", utils.find_free_port()))


class WaitForCallTests(SynchronousTestCase):
    """``utils.wait_for_call``, of a mock."""

    def test_called(self) -> None:
        """It fires with the call, now or then; the mock does what it did."""
        mock = Mock(side_effect=[1, ValueError, 3])
        waited = utils.wait_for_call(1, mock, Clock())
        self.assertNoResult(waited)
        self.assertEqual(mock(), 1)
        self.assertIs(self.successResultOf(waited), mock)
        self.assertRaises(ValueError, mock)
        self.assertEqual((mock(), mock.call_count), (3, 3))
        self.assertIs(self.successResultOf(utils.wait_for_call(1, mock, Clock())), mock)

    def test_timeout(self) -> None:
        """It fails when the time is up, and leaves the mock as it was."""
        clock, mock = Clock(), Mock(return_value=1)
        waited = utils.wait_for_call(1, mock, clock)
        clock.advance(1)
        self.failureResultOf(waited, DeferredTimeout)
        self.assertEqual((mock.side_effect, mock()), (None, 1))


class StopsRaisingTests(SynchronousTestCase):
    """``assert_stops_raising``."""

    def test_stops(self) -> None:
        """It tries until there is no error."""
        clock, function = Clock(), Mock(side_effect=[ValueError, ValueError, 3])
        stops = utils.assert_stops_raising(function, ValueError, clock=clock)
        clock.pump([0.1])
        self.assertNoResult(stops)
        clock.pump([0.1])
        self.assertEqual(self.successResultOf(stops), 3)

    def test_goes_on(self) -> None:
        """It gives up with the error; another kind of error ends it at once."""
        clock, function = Clock(), Mock(side_effect=ValueError)
        stops = utils.assert_stops_raising(function, timeout=1, interval=0.5, clock=clock)
        clock.pump([0.5, 0.5])
        self.failureResultOf(stops, ValueError)
        self.failureResultOf(utils.assert_stops_raising(function, KeyError, clock=clock), ValueError)


class WaitingTests(TestCase):
    """``waiting.wait_for_call``, of a method."""

    async def wait(self, obj: Any, act: Any, **options: Any) -> waiting.WaitResult:
        async with waiting.wait_for_call(obj, "method", **options) as waited:
            self.assertRaises(waiting.WaitResult.NotReady, waited.get)
            act()
        return waited

    async def test_call(self) -> None:
        """A call's result is there after the block, of a Deferred what it fired with; the method is itself again."""
        obj = Mock()
        for value in (3, succeed(3)):
            obj.method = method = Mock(return_value=value)
            self.assertEqual((await self.wait(obj, lambda: obj.method(1))).get(), 3)
            self.assertIs(obj.method, method)
            method.assert_called_once_with(1)

    async def test_error(self) -> None:
        """The error of a call is raised by ``get``."""
        obj = Mock()
        obj.method.side_effect = ValueError
        waited = await self.wait(obj, lambda: self.assertRaises(ValueError, obj.method))
        self.assertRaises(ValueError, waited.get)

    async def test_callback(self) -> None:
        """It waits for the call that the callback wants."""
        obj = Mock()
        obj.method.side_effect = lambda value: value

        def act() -> None:
            for value in range(4):
                obj.method(value)

        waited = await self.wait(obj, act, callback=lambda args, kwargs, result, exc_info: args == (2,))
        self.assertEqual(waited.get(), 2)

    async def test_timeout(self) -> None:
        """A call that never comes fails the block."""
        waited: Deferred[Any] = Deferred.fromCoroutine(self.wait(Mock(), lambda: None, timeout=0.01))
        await self.assertFailure(waited, DeferredTimeout)


class IdleTests(TestCase):
    """``wait_for_worker_idle``."""

    async def test_idle(self) -> None:
        """It waits for the workers there are, and for none if there is none."""
        work: Deferred[None] = Deferred()

        class Working:
            name = "working"

            @dummy
            def work(self):
                return work

        container = ServiceContainer(Working, {}, clock=Clock())
        await utils.wait_for_worker_idle(container)
        container.spawn_worker(container.entrypoints[0], (), {})
        waiting = utils.wait_for_worker_idle(container, timeout=3)
        self.assertNoResult(waiting)
        late = utils.wait_for_worker_idle(container, timeout=1)
        container.clock.advance(2)
        self.failureResultOf(late, DeferredTimeout)
        work.callback(None)
        self.successResultOf(waiting)
        self.assertEqual(container.clock.getDelayedCalls(), [])


class PipelineTests(SynchronousTestCase):
    """``ResourcePipeline``."""

    def setUp(self) -> None:
        self.making: list[Deferred[Any]] = []
        self.destroyed: list[Any] = []
        self.begun: list[Any] = []
        self.destroying: Deferred[None] = succeed(None)

    def tearDown(self) -> None:
        for manager in reversed(self.begun):
            ending = self.end(manager)
            for each in self.making:
                if not each.called:
                    each.callback(None)
            self.successResultOf(ending)

    def pipeline(self, size: int = 2) -> utils.ResourcePipeline[Any]:
        return utils.ResourcePipeline(self.create, self.destroy, size)

    def create(self) -> Deferred[Any]:
        self.making.append(Deferred())
        return self.making[-1]

    def destroy(self, resource: Any) -> Deferred[None]:
        self.destroyed.append(resource)
        return self.destroying

    def begin(self, manager: Any) -> Deferred[Any]:
        self.begun.append(manager)  # one that nobody holds any more ends
        return Deferred.fromCoroutine(manager.__aenter__())

    def end(self, manager: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(manager.__aexit__(None, None, None))

    def test_ahead(self) -> None:
        """As many as told are made ahead, one after the other; each that is taken is made up for."""
        pipeline = self.pipeline()
        self.successResultOf(self.begin(pipeline.run()))
        self.making[0].callback("a")
        self.making[1].callback("b")
        self.assertEqual(len(self.making), 2)
        self.assertEqual(self.successResultOf(self.begin(pipeline.get())), "a")
        self.assertEqual(len(self.making), 3)

    def test_wait(self) -> None:
        """The first to come waits for the first thing that is made."""
        pipeline = self.pipeline()
        self.successResultOf(self.begin(pipeline.run()))
        taking, next_taking = self.begin(pipeline.get()), self.begin(pipeline.get())
        self.assertNoResult(taking)
        self.making[0].callback("a")
        self.making[1].callback("b")
        self.assertEqual([self.successResultOf(taking), self.successResultOf(next_taking)], ["a", "b"])

    def test_given_back(self) -> None:
        """A thing that is given back is destroyed, and nobody waits for that."""
        pipeline = self.pipeline()
        self.destroying = Deferred()
        self.successResultOf(self.begin(pipeline.run()))
        self.making[0].callback("a")
        lease = pipeline.get()
        self.successResultOf(self.begin(lease))
        self.successResultOf(self.end(lease))
        self.assertEqual(self.destroyed, ["a"])
        self.destroying.callback(None)

    def test_end(self) -> None:
        """The end waits for what is being made, and until all is destroyed."""
        pipeline = self.pipeline()
        run = pipeline.run()
        self.destroying = Deferred()
        self.successResultOf(self.begin(run))
        self.making[0].callback("a")
        ending = self.end(run)
        self.making[1].callback("b")
        self.assertEqual((len(self.making), self.destroyed), (2, ["a", "b"]))
        self.assertNoResult(ending)
        self.destroying.callback(None)
        self.successResultOf(ending)

    def test_errors(self) -> None:
        """An error in making is told to whoever takes; an error in destroying is told at the end."""
        pipeline = self.pipeline(size=1)
        run = pipeline.run()
        self.successResultOf(self.begin(run))
        self.making[0].errback(KeyError("make"))
        self.failureResultOf(self.begin(pipeline.get()), KeyError)
        self.making[1].callback("a")
        self.destroying = fail(ValueError("destroy"))
        self.failureResultOf(self.end(run), ValueError)
        self.assertEqual(self.destroyed, ["a"])

    def test_nothing_made(self) -> None:
        """A thing that could not be made is not destroyed either; a pipeline of no size is refused."""
        pipeline = self.pipeline(size=1)
        run = pipeline.run()
        self.successResultOf(self.begin(run))
        self.making[0].errback(KeyError("make"))
        self.successResultOf(self.end(run))
        self.assertEqual(self.destroyed, [])
        self.assertRaises(RuntimeError, self.pipeline, 0)
