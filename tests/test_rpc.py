"""The service's side of RPC: which methods run for which requests, and what becomes of values and errors."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from tests.answering import Custom, Other, Service
from tests.services import ServicesCase
from txservices.exceptions import (
    IncorrectSignature,
    MethodNotFound,
    RemoteError,
    RpcTimeout,
    UnknownService,
    deserialize_to_instance,
    registry,
)
from txservices.extensions import DependencyProvider
from txservices.rpc import ClusterRpc, Rpc, rpc

ANY_FORMAT = {"ACCEPT": ["json", "msgpack"]}
LONE_SURROGATE = "\ud800"  # JSON can write it, msgpack can't


class AnswerTests(ServicesCase):
    """From request to value or error."""

    async def test_arguments_and_value(self) -> None:
        """Positional and named arguments arrive as they were given, and so does the value."""
        await self.start(Service)
        cluster = await self.cluster()
        value = await cluster.service.echo(1, "ø", None, x={"y": [1.5]})
        self.assertEqual(value, [[1, "ø", None], {"x": {"y": [1.5]}}])

    async def test_each_kind_of_method(self) -> None:
        """Plain, async, inlineCallbacks and Deferred-returning methods all give their caller a value."""
        await self.start(Service, Other)
        service = (await self.cluster()).service
        values = await gatherResults(
            [service.plain("v"), service.coroutine("v"), service.generator("v"), service.deferred("v")]
        )
        self.assertEqual(values, ["v", "other v", "other v", "other v"])

    async def test_unknown_service(self) -> None:
        """A service that has never run is unknown, by its name, to workers and to standalone proxies."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(UnknownService) as raised:
            await cluster.nobody.method()
        self.assertEqual(str(raised.exception), "Unknown service `nobody` (call of nobody.method)")
        with self.assertRaises(RemoteError) as remote:
            await cluster.service.deferred(1)
        self.assertEqual(remote.exception.exc_type, "UnknownService")
        self.assertEqual(len(self.flushLoggedErrors(UnknownService)), 1)

    async def test_passed_on(self) -> None:
        """An error that a service in the middle passes on says whose call it was, and that of its own caller."""

        class Middle:
            name = "middle"
            far = ClusterRpc()

            @rpc
            def method(self):
                return self.far.service.nothing()

            @rpc
            def waits(self):
                return self.far.waiting.method.options(timeout=0.1)()

        class Waiting:
            name = "waiting"

            @rpc
            def method(self):
                return Deferred()

        await self.start(Service, Middle)
        await self.process(SHUTDOWN_TIMEOUT=0).start(Waiting)
        middle = (await self.cluster()).middle
        with self.assertRaises(MethodNotFound) as missing:
            await middle.method()
        self.assertEqual(str(missing.exception), "nothing (call of service.nothing) (call of middle.method)")
        with self.assertRaises(RemoteError) as late:
            await middle.waits()
        self.assertRegex(str(late.exception), r"^RpcTimeout no reply within 0.1 s: .* \(call of waiting.method\)$")
        self.flushLoggedErrors(MethodNotFound, RpcTimeout)

    async def test_unknown_method(self) -> None:
        """A method that isn't there is named in the error."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(MethodNotFound) as raised:
            await cluster.service.nothing()
        self.assertEqual(raised.exception.args, ("nothing",))

    async def test_signatures(self) -> None:
        """Arguments that the method does not take are refused with Python's words, and no worker runs."""
        await self.start(Service)
        service = (await self.cluster()).service
        accepted = [
            ("two", (1,), {}, [1, 1]),
            ("two", (1, 2), {}, [1, 2]),
            ("two", (), {"a": 1, "b": 2}, [1, 2]),
            ("named", (1,), {"b": 2}, [1, 2]),
            ("echo", (1, 2, 3), {}, [[1, 2, 3], {}]),
        ]
        for method, args, kwargs, value in accepted:
            self.assertEqual(await getattr(service, method)(*args, **kwargs), value)
        refused = [
            ("two", (), {}, "missing 1 required positional argument: 'a'"),
            ("two", (1, 2, 3), {}, "takes from 2 to 3 positional arguments but 4 were given"),
            ("two", (1,), {"a": 1}, "multiple values for argument 'a'"),
            ("two", (1,), {"c": 1}, "unexpected keyword argument 'c'"),
            ("named", (1, 2), {}, "positional argument"),
            ("named", (1,), {}, "keyword-only argument"),
            ("plain", (), {"self": 1}, "multiple values for argument 'self'"),
        ]
        for method, args, kwargs, text in refused:
            with self.assertRaises(IncorrectSignature) as raised:
                await getattr(service, method)(*args, **kwargs)
            self.assertIn(text, str(raised.exception))

    async def test_error_in_the_method(self) -> None:
        """The method's error arrives as its type's name and its text."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.fail()
        self.assertEqual((raised.exception.exc_type, raised.exception.value), ("Custom", "('a', 1)"))
        self.assertEqual(len(self.flushLoggedErrors(Custom)), 1)

    async def test_expected_error(self) -> None:
        """An expected error arrives likewise, and is no error in the service's log."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError):
            await cluster.service.fail_expectedly()

    async def test_error_behind_an_error(self) -> None:
        """An error two services away is wrapped once for each."""
        await self.start(Service, Other)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.fail_there()
        self.assertEqual(str(raised.exception), "RemoteError Custom there")
        self.flushLoggedErrors(Custom, RemoteError)

    async def test_registered_error(self) -> None:
        """An error registered here arrives as itself, with its arguments made text."""
        deserialize_to_instance(Custom)
        self.addCleanup(registry.pop, f"{Custom.__module__}.Custom")
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(Custom) as raised:
            await cluster.service.fail()
        self.assertEqual(raised.exception.args, ("a", "1"))
        self.flushLoggedErrors(Custom)

    async def test_exit_in_the_method(self) -> None:
        """SystemExit from a method is an error at the caller; the service goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.leave()
        self.assertEqual(raised.exception.exc_type, "SystemExit")
        self.assertEqual(await cluster.service.plain(1), 1)
        self.flushLoggedErrors(SystemExit)

    async def test_unserializable_result(self) -> None:
        """A result that can't be written is an error at the caller, which shows it if it can be shown."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.unserializable()
        self.assertEqual(raised.exception.exc_type, "UnserializableValueError")
        self.assertIn("Unserializable value: `<set_iterator", raised.exception.value)
        with self.assertRaises(RemoteError) as raised:
            await cluster.service.unprintable()
        self.assertEqual(raised.exception.value, "Unserializable value: `[__repr__ failed]`")

    async def test_error_that_cannot_be_written(self) -> None:
        """An error's text that the request's serializer can't write is answered in JSON."""

        class Odd:
            name = "odd"

            @rpc(expected_exceptions=Custom)
            def method(self):
                raise Custom(LONE_SURROGATE)

        await self.start(Odd, **ANY_FORMAT)
        cluster = await self.process(**{**ANY_FORMAT, "serializer": "msgpack"}).cluster()
        error = await self.assertFailure(cluster.odd.method(), RemoteError)
        self.assertEqual((error.exc_type, error.value), ("Custom", LONE_SURROGATE))

    async def test_result_changed_on_the_way(self) -> None:
        """A subclass of Rpc may change what is sent, and the dependencies see what was."""
        seen = []

        class Changing(Rpc):
            def handle_result(self, message, worker_ctx, result, exc_info):
                return super().handle_result(message, worker_ctx, [result, "changed"], exc_info)

        class Seeing(DependencyProvider):
            def worker_result(self, worker_ctx, result=None, exc_info=None):
                seen.append((result, exc_info))

        class Changed:
            name = "changed"
            seeing = Seeing()

            @Changing.decorator
            def method(self):
                return 1

        await self.start(Changed)
        self.assertEqual(await (await self.cluster()).changed.method(), [1, "changed"])
        self.assertEqual(seen, [([1, "changed"], None)])


class Everybody:
    """Knows whom it calls only when it does."""

    name = "everybody"
    cluster = ClusterRpc(timeout=5)

    @rpc
    async def ask(self, service, value):
        return [await self.cluster[service].plain(value), await self.cluster.service.plain(value)]

    @rpc(blocking=True)
    def wait(self, service, value):
        return [self.cluster[service].plain(value), self.cluster.service.plain(value)]


class ClusterRpcTests(ServicesCase):
    """All services, injected."""

    async def test_any_service(self) -> None:
        """A service named at the call is called, by attribute or in brackets, in the reactor and in a thread."""
        await self.start(Service, Everybody)
        cluster = await self.cluster()
        self.assertEqual(await cluster.everybody.ask("service", 1), [1, 1])
        self.assertEqual(await cluster.everybody.wait("service", 2), [2, 2])

    async def test_nobody(self) -> None:
        """A service that there isn't is known by its error."""
        await self.start(Service, Everybody)
        error = await self.assertFailure((await self.cluster()).everybody.ask("nobody", 1), RemoteError)
        self.assertEqual(error.exc_type, "UnknownService")
        self.assertEqual(len(self.flushLoggedErrors(UnknownService)), 1)
