"""What observers are told of calls: how they begin and end, and why."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.observing import EVENTS, failing, hearing
from tests.services import ServicesCase, client_of
from txservices.amqp.publish import Publisher
from txservices.containers import WorkerContext
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import (
    EncodeError,
    MethodNotFound,
    PublishTimeout,
    RemoteError,
    RpcConnectionError,
    RpcTimeout,
    UndeliverableMessage,
    UnknownService,
)
from txservices.observers import CANCELLED, ERROR, OK, TIMEOUT, Observer, observers
from txservices.retry import Retry
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard


class Service:
    """Calls itself, and dispatches events."""

    name = "told"

    other = RpcProxy("told", timeout=30)
    dispatch = EventDispatcher()
    handled = Heard()
    waiting: Deferred[None]

    @rpc(expected_exceptions=KeyError)
    def run(self, error: str = "") -> str:
        if error:
            raise {"expected": KeyError, "unexpected": ValueError}[error](error)
        return "done"

    @rpc
    async def call(self) -> Any:
        return await self.other.run()

    @rpc
    async def wait(self) -> None:
        await self.waiting

    @rpc
    async def tell(self) -> None:
        await self.dispatch("happened", 1)

    @event_handler("told", "happened")
    def hear(self, data: Any) -> None:
        self.handled(data)


class CallsTests(ServicesCase):
    """Calls and events of services on the stage."""

    def calls(self, told: Any) -> list[tuple[Any, ...]]:
        """Of each call its event, method, and if it has ended the outcome and the class of its error."""
        found = []
        for event, call, *args in told.of("call_started", "call_ended"):
            name = f"{call.service} {call.method}"
            found.append((name, args[0], type(args[2])) if event == "call_ended" else (name,))
        return found

    async def test_outcomes(self) -> None:
        """Each call begins and ends once, as its answer says."""
        await self.start(Service)
        cluster = await self.cluster()
        told = hearing(self)
        cases: list[tuple[Any, str, type[Any]]] = [
            (cluster.told.run, OK, type(None)),
            (partial(cluster.told.run, "expected"), ERROR, RemoteError),
            (partial(cluster.told.run, "unexpected"), ERROR, RemoteError),
            (cluster.told.missing, ERROR, MethodNotFound),
            (cluster.nobody.run, ERROR, UnknownService),
        ]
        for call, outcome, kind in cases:
            told.told.clear()
            with self.subTest(call=call):
                with contextlib.suppress(Exception):
                    await call()
                (started,), ended = self.calls(told)[0], self.calls(told)[1]
                self.assertEqual(ended, (started, outcome, kind))
                self.assertEqual(len(self.calls(told)), 2)
                first, *_, last = told.of("call_started", "call_ended")
                self.assertIs(first[1], last[1])
                self.assertGreaterEqual(last[3], 0)
        self.flushLoggedErrors()

    async def test_within_a_worker(self) -> None:
        """A worker's call begins and ends within it, on its behalf, and the called worker in between."""
        await self.start(Service)
        cluster = await self.cluster()
        told = hearing(self, "worker_started", "worker_ended", "call_started", "call_ended")
        await cluster.told.call()
        found = [
            f"{event} {getattr(what, 'method', None) or what.entrypoint.method_name}" for event, what, *_ in told.told
        ]
        self.assertEqual(
            found,
            [
                "call_started call",
                "worker_started call",
                "call_started run",
                "worker_started run",
                "worker_ended run",
                "call_ended run",
                "worker_ended call",
                "call_ended call",
            ],
        )
        (_, outer), (_, _, caller, headers) = told.of("worker_started")[0], told.of("call_started")[1]
        self.assertIs(caller, outer)
        self.assertIn("nameko.call_id_stack", headers)

    async def test_headers(self) -> None:
        """What an observer adds to a request's headers arrives with it, also one that nameko would pass on."""
        arrived: list[dict[str, Any]] = []

        class Traces(Observer):
            def call_started(self, call: Any, context: Any, headers: dict[str, Any]) -> None:
                headers["traceparent"] = "00-1"
                headers["nameko.tenant"] = call.method

            def worker_started(self, worker: WorkerContext) -> None:
                arrived.append({**worker.message.headers, "data": worker.data.get("tenant")})

        observer = Traces({})
        observers.add(observer)
        self.addCleanup(observers.remove, observer)
        await self.start(Service)
        await (await self.cluster()).told.run()
        self.assertEqual((arrived[0]["traceparent"], arrived[0]["data"]), ("00-1", "run"))

    async def test_no_answer(self) -> None:
        """A call that has no answer ends as what it is: cancelled, late, or stopped with its proxy."""
        await self.start(Service)
        waiting = Service.waiting = Deferred()
        cluster = await self.cluster()
        told = hearing(self, "call_started", "call_ended")
        cancelled = cluster.told.wait()
        cancelled.cancel()
        for each, kind in ((cancelled, CancelledError), (cluster.told.wait.options(timeout=0.01)(), RpcTimeout)):
            with self.assertRaises(kind):
                await each
        stopped = cluster.told.wait()
        client_of(cluster).abort()
        with self.assertRaises(RpcConnectionError):
            await stopped
        with self.assertRaises(RuntimeError):
            cluster.told.run()
        self.assertEqual(
            [each[1:] for each in self.calls(told) if len(each) > 1],
            [(CANCELLED, type(None)), (TIMEOUT, RpcTimeout), (ERROR, RpcConnectionError)],
        )
        self.assertEqual(len(told.of("call_started")), 3)
        waiting.callback(None)

    async def test_not_written(self) -> None:
        """A call whose arguments can't be written does not begin; one that AMQP can't carry ends with that error."""
        cluster = await self.cluster()
        told = hearing(self, "call_started", "call_ended")
        with self.assertRaises(EncodeError):
            cluster.told.run(object())
        self.assertEqual(told.told, [])
        with self.assertRaises(ValueError):
            cluster["x" * 300].run()
        self.assertEqual([each[1:] for each in self.calls(told)], [(), (ERROR, ValueError)])

    async def test_attempts(self) -> None:
        """A call that is made again is told of for each attempt."""
        cluster = await self.cluster(retry=Retry(attempts=3, delay=0, jitter=0))
        told = hearing(self, "call_started", "call_ended")
        with self.assertRaises(UnknownService):
            await cluster.nobody.run()
        self.assertEqual(self.calls(told), [("nobody run",), ("nobody run", ERROR, UnknownService)] * 3)

    async def test_events(self) -> None:
        """An event that a service or a program dispatches is told of with its service and type."""
        await self.start(Service)
        cluster = await self.cluster()
        told = hearing(self, "event_dispatched")
        await cluster.told.tell()
        await self.dispatch("told", "other", 2)
        self.assertEqual(told.told, [("event_dispatched", "told", "happened"), ("event_dispatched", "told", "other")])
        await Service.handled.wait()

    async def test_publishes(self) -> None:
        """What a worker or a program publishes begins, may be given headers, and ends when the broker has it."""
        arrived: list[dict[str, Any]] = []

        class Adds(Observer):
            def publish_started(self, publish: Any, context: Any, headers: dict[str, Any]) -> None:
                headers["traceparent"] = publish.routing_key

            def worker_started(self, worker: WorkerContext) -> None:
                arrived.append(worker.message.headers)

        observer = Adds({})
        observers.add(observer)
        self.addCleanup(observers.remove, observer)
        told = hearing(self, "publish_started", "publish_ended", "worker_started")
        await self.start(Service)
        await (await self.cluster()).told.tell()
        await self.dispatch("told", "other", 2)
        await Service.handled.wait()
        (_, first, worker, headers), (_, second, owner, _) = told.of("publish_started")
        self.assertEqual(
            [(each.exchange, each.routing_key) for each in (first, second)],
            [("told.events", "happened"), ("told.events", "other")],
        )
        self.assertEqual(told.of("publish_ended"), [("publish_ended", first, None), ("publish_ended", second, None)])
        self.assertIs(worker, told.of("worker_started")[0][1])
        self.assertNotIsInstance(owner, WorkerContext)
        self.assertIn("nameko.call_id_stack", headers)
        self.assertEqual(arrived[1]["traceparent"], "happened")

    async def test_not_published(self) -> None:
        """One that the broker can't have ends with its error, once; one that can't be written does not begin."""
        told = hearing(self, "publish_started", "publish_ended")
        connections = self.connections()
        publisher = Publisher(None)
        publisher.use(connections, self.config)
        cases: list[tuple[dict[str, Any], type[Exception], int]] = [
            ({"routing_key": "nobody", "mandatory": True}, UndeliverableMessage, 1),
            ({"routing_key": "late", "timeout": 0}, PublishTimeout, 1),
            ({"routing_key": "x" * 300}, ValueError, 1),
            ({"routing_key": "nobody", "payload": object()}, EncodeError, 0),
        ]
        for options, kind, times in cases:
            told.told.clear()
            with self.subTest(kind=kind):
                with self.assertRaises(kind):
                    await publisher.publish(**{"payload": 1, **options})
                ended = [(publish, type(error)) for _, publish, error in told.of("publish_ended")]
                self.assertEqual(ended, [(told.told[0][1], kind)] * times if times else [])
                self.assertEqual(len(told.of("publish_started")), times)

    async def test_observer_that_fails(self) -> None:
        """One that raises in each event harms nothing: calls are answered, events handled, messages settled."""
        failing(self)
        await self.start(Service)
        cluster = await self.cluster()
        self.assertEqual(await cluster.told.call(), "done")
        await cluster.told.tell()
        await Service.handled.wait()
        await self.stage.stop()
        failed = {str(failure.value) for failure in self.flushLoggedErrors(SystemExit)}
        self.assertLessEqual({"worker_started", "worker_ended", "call_started", "call_ended"}, failed)
        self.assertLessEqual(failed, set(EVENTS))
