"""What tests look for, wait for, and compare with."""

from __future__ import annotations

import socket
from functools import partial
from typing import Any
from unittest.mock import Mock, call

from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txservices.containers import ServiceContainer
from txservices.dependency_providers import Config
from txservices.rpc import Rpc, rpc
from txservices.runners import ServiceRunner
from txservices.testing import utils, waiting
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
        self.assertEqual(utils.unpack_mock_call(call(1, b=2)), ((1,), {"b": 2}))

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
