"""Whatever a hook does that an author has overridden, the message is settled, its caller told, and the service answers.

Each case is one hook and one way to fail, oftener than the prefetch allows for messages that are not settled.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, succeed

from tests import hostile
from tests.services import OnRabbitMQ, ServicesCase
from txservices.events import EventHandler, event_handler
from txservices.exceptions import RemoteError, RpcTimeout
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.rpc import Rpc, rpc
from txservices.standalone.events import event_dispatcher
from txservices.testing.waiting import Heard

PREFETCH = 3
TIMES = 4 * PREFETCH
Way = Callable[[], Any]


def raises(error: type[BaseException], *args: Any) -> Way:
    def way() -> Any:
        raise error(*args)

    return way


async def coroutine() -> Any:
    raise ValueError("in a coroutine")


def cancelled() -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    deferred.cancel()
    return deferred


RAISING: dict[str, Way] = {
    "an exception": raises(ValueError, "raised"),
    "a type error": raises(TypeError, "raised"),
    "an exit": raises(SystemExit, 3),
    "an interrupt": raises(KeyboardInterrupt),
    "a generator's exit": raises(GeneratorExit),
    "a cancel": raises(CancelledError),
}
WAITING: dict[str, Way] = {
    "a failed Deferred": lambda: fail(ValueError("failed")),
    "a coroutine": coroutine,
    "a cancelled Deferred": cancelled,
    "nothing": lambda: None,
    "a wrong thing": lambda: 7,
}
EVERY = {**RAISING, **WAITING}
NOT_WAITING = {**RAISING, "a wrong thing": lambda: 7}  # for hooks whose result is not waited for
NO_CONTEXT = {**NOT_WAITING, "an unfired Deferred": Deferred, "a fired Deferred": lambda: succeed({})}
# hook, the ways it fails in, whether the caller is to get an error
RPC_HOOKS: list[tuple[str, dict[str, Way], bool]] = [
    ("handle_result", EVERY, True),
    ("check_signature", RAISING, True),
    ("unpack_message_headers", NO_CONTEXT, True),
    ("result_not_handled", EVERY, False),  # it is not called
]
CONSUMER_HOOKS: list[tuple[str, dict[str, Way]]] = [
    ("handle_result", EVERY),
    ("unpack_message_headers", NO_CONTEXT),
    ("handle_message", RAISING),
]


def overriding(base: type[Any], hook: str, way: Way) -> Any:
    """A decorator of an entrypoint whose hook does that."""
    return type("Own", (base,), {hook: lambda self, *args, **kwargs: way()}).decorator


class WorkerResult(DependencyProvider):
    def worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: Any = None) -> Any:
        if worker_ctx.entrypoint.method_name == "broken":
            return self.way()
        return None

    def way(self) -> Any:
        raise NotImplementedError  # the subclasses raise in their own


def encode(value: Any) -> Any:
    """JSON, except for results that name a way to fail."""
    way = NOT_WAITING.get(value.get("result")) if isinstance(value.get("result"), str) else None
    return json.dumps(value) if way is None else way()


OWN = {
    "encoder": f"{__name__}.encode",
    "decoder": "json.loads",
    "content_type": "application/x-own",
    "content_encoding": "utf-8",
}


class EveryPath(ServicesCase):
    """On the embedded broker."""

    timeout = 100
    seeds = 100  # of exceptions

    async def answers(self, service: type[Any], *args: Any, **config: Any) -> list[Any]:
        """The outcomes of as many calls of ``broken``, once ``sound`` has answered after them."""
        self.config.update(config)
        (container,) = await self.start(service, PREFETCH_COUNT=PREFETCH, max_workers=2)
        proxy = getattr(await self.cluster(), service.name)
        calls = [proxy.broken(*args) for _ in range(TIMES)]
        outcomes = [outcome for _, outcome in await DeferredList(calls, consumeErrors=True)]
        self.assertEqual(await proxy.sound(), "sound")
        for outcome in outcomes:
            self.assertNotIsInstance(getattr(outcome, "value", None), RpcTimeout)
        await container.stop()
        self.flushLoggedErrors()
        return outcomes

    async def test_rpc(self) -> None:
        """The caller of a method whose entrypoint fails gets an error, and no other caller does."""
        for number, (hook, way, told) in enumerate(
            (hook, way, told) for hook, ways, told in RPC_HOOKS for way in ways.values()
        ):
            own = overriding(Rpc, hook, way)

            class Service:
                name = f"service{number}"

                @own
                def broken(self):
                    return "broken"

                @rpc
                def sound(self):
                    return "sound"

            outcomes = await self.answers(Service)
            self.assertEqual({outcome == "broken" for outcome in outcomes}, {not told}, (hook, way))

    async def test_rpc_answered_before(self) -> None:
        """A ``handle_result`` that fails when the reply is on its way changes nothing for the caller."""
        for number, way in enumerate(EVERY.values()):

            class Own(Rpc):
                def handle_result(self, *args: Any, way: Way = way) -> Any:
                    super().handle_result(*args)
                    return way()

            own = Own.decorator

            class Service:
                name = f"service{number}"

                @own
                def broken(self):
                    return "broken"

                @rpc
                def sound(self):
                    return "sound"

            self.assertEqual(set(await self.answers(Service)), {"broken"})

    async def test_worker_result(self) -> None:
        """A dependency that fails with the result keeps nobody's reply."""
        for number, way in enumerate(EVERY.values()):
            own = type("Own", (WorkerResult,), {"way": lambda self, way=way: way()})

            class Service:
                name = f"service{number}"
                dependency = own()

                @rpc
                def broken(self):
                    return "broken"

                @rpc
                def sound(self):
                    return "sound"

            self.assertEqual(set(await self.answers(Service)), {"broken"})

    async def test_encoder(self) -> None:
        """The caller of a method whose result the configured encoder fails on gets an error."""

        class Service:
            name = "service"

            @rpc
            def broken(self, way):
                return way

            @rpc
            def sound(self):
                return "sound"

        for way in NOT_WAITING:
            outcomes = await self.answers(Service, way, SERIALIZERS={"own": OWN}, serializer="own")
            self.assertEqual({outcome.value.exc_type for outcome in outcomes}, {"UnserializableValueError"}, way)

    async def test_container(self) -> None:
        """An error that a custom container raises from ``spawn_worker`` is the caller's answer."""

        class Service:
            name = "service"

            @rpc
            def broken(self):
                return "broken"

            @rpc
            def sound(self):
                return "sound"

        for way in RAISING.values():
            (container,) = await self.start(Service, PREFETCH_COUNT=PREFETCH)
            spawn = container.spawn_worker

            def spawn_worker(entrypoint: Any, *args: Any, way: Way = way, spawn: Any = spawn, **kwargs: Any) -> Any:
                return way() if entrypoint.method_name == "broken" else spawn(entrypoint, *args, **kwargs)

            container.spawn_worker = spawn_worker  # it raises
            proxy = (await self.cluster()).service
            outcomes = await DeferredList([proxy.broken() for _ in range(TIMES)], consumeErrors=True)
            self.assertNotIn((True, "broken"), outcomes)
            self.assertEqual(await proxy.sound(), "sound")
            await container.stop()
            self.flushLoggedErrors()

    async def test_events(self) -> None:
        """Events whose handler's hooks fail are settled, and the next ones handled."""
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        for number, (hook, way) in enumerate((hook, way) for hook, ways in CONSUMER_HOOKS for way in ways.values()):
            own, heard = overriding(EventHandler, hook, way), Heard()

            class Listener:
                name = f"listener{number}"

                @own("teller", "broken")
                def broken(self, value):
                    pass

                @event_handler("teller", "sound")
                def sound(self, value, heard=heard):
                    heard(value)

            (container,) = await self.start(Listener, PREFETCH_COUNT=PREFETCH)
            for each in range(TIMES):
                await dispatch("teller", "broken", each)
            await dispatch("teller", "sound", 1)
            await heard.wait()
            await container.stop()
            await self.assert_empty(f"evt-teller-broken--listener{number}.broken")
            self.flushLoggedErrors()

    async def test_any_exception(self) -> None:
        """Whatever an exception is like that a method raises, its caller gets an error and its event is settled."""
        errors = [hostile.exception(Random(seed)) for seed in range(self.seeds)]
        heard = Heard()

        class Hears(DependencyProvider):
            def worker_result(self, worker_ctx: WorkerContext, result: Any = None, exc_info: Any = None) -> None:
                if worker_ctx.entrypoint.method_name == "handle":
                    heard(exc_info)

        class Service:
            name = "service"
            hears = Hears()

            @rpc(expected_exceptions=KeyError)
            def plain(self, number):
                raise errors[number]

            @rpc
            async def waiting(self, number):
                raise errors[number]

            @rpc
            def sound(self):
                return "sound"

            @event_handler("teller", "number")
            def handle(self, number):
                raise errors[number]

        self.config["RPC_TIMEOUT"] = 60
        (container,) = await self.start(Service, PREFETCH_COUNT=PREFETCH, max_workers=2)
        proxy = (await self.cluster()).service
        calls = [method(number) for method in (proxy.plain, proxy.waiting) for number in range(len(errors))]
        outcomes = await DeferredList(calls, consumeErrors=True)
        self.assertEqual({type(outcome.value) for _, outcome in outcomes}, {RemoteError})
        self.assertEqual(await proxy.sound(), "sound")
        dispatch = event_dispatcher(self.config)
        self.addCleanup(dispatch.stop)
        for number in range(len(errors)):
            await dispatch("teller", "number", number)
        await heard.wait(len(errors))
        await container.stop()
        await self.assert_empty("evt-teller-number--service.handle")
        self.flushLoggedErrors()

    async def assert_empty(self, queue: str) -> None:
        """Nothing is left in a queue that nobody consumes any more."""
        protocol = await self.connections().consuming.when_connected()
        channel = await protocol.open_channel()
        declared = await channel.queue_declare(queue=queue, passive=True)
        self.assertEqual(declared.message_count, 0)


class EveryPathOnRabbitMQ(OnRabbitMQ, EveryPath):
    """On RabbitMQ."""

    seeds = 20  # an exception becomes the same bytes whatever broker takes them
