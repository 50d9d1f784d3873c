"""The caller's side of RPC: what can be called and with what, and what a call gives."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.answering import AnsweringCase, Custom, Other, Service
from tests.services import ServicesCase, client_of
from txservices.amqp.options import Sending
from txservices.events import EventDispatcher
from txservices.exceptions import (
    ConfigurationError,
    EncodeError,
    MethodNotFound,
    RemoteError,
    RpcConnectionError,
    RpcTimeout,
    UnknownService,
)
from txservices.proxies import NAMES_MAX, ClusterProxy, ServiceProxy, default_options
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard


class ManyNames(TestCase):
    """Names of services and methods that a program takes from strangers."""

    def test_many_names(self) -> None:
        """A proxy remembers a bounded number of them, and calls any of them."""
        called = []

        def begin(service: str, method: str, *_: Any) -> None:
            called.append(f"{service}.{method}")

        for proxy, name in [(ServiceProxy(begin, "s", Sending()), "s.m{}"), (ClusterProxy(begin, Sending()), "m{}.x")]:
            called.clear()
            for number in range(2 * NAMES_MAX):
                found = getattr(proxy, f"m{number}")
                (found if isinstance(proxy, ServiceProxy) else found.x)()
            self.assertEqual(called, [name.format(number) for number in range(2 * NAMES_MAX)])
            self.assertLessEqual(len(vars(proxy)), NAMES_MAX)
            self.assertIs(proxy.m1, proxy.m1)
            self.assertIsNot(getattr(proxy, f"m{2 * NAMES_MAX - 1}"), getattr(proxy, f"m{2 * NAMES_MAX - 1}"))


class CallTests(AnsweringCase):
    """The handle that a proxy gives, before and after there is an answer."""

    async def test_call_async(self) -> None:
        """``call_async`` does not wait; ``result()`` gives the value as often as asked, in any order."""
        await self.start(Service)
        service = (await self.cluster()).service
        first, second = service.plain.call_async(1), service.plain.call_async(2)
        self.assertEqual(await second.result(), 2)
        early = [first.result(), first.result()]
        self.assertEqual([await each for each in early], [1, 1])
        self.assertEqual(await first.result(), 1)

    async def test_unawaited(self) -> None:
        """A call that failed, and that nobody awaits, is told with its name and its error, and fails a trial's test."""
        await self.start(Service)
        _, _, answers = await self.waiting_service()
        cluster = await self.cluster()
        dropped = {
            "service.fail_expectedly": (cluster.service.fail_expectedly, RemoteError),
            "service.missing": (cluster.service.missing, MethodNotFound),
            "nobody.method": (cluster.nobody.method, UnknownService),
            "waiting.method": (cluster.waiting.method.options(timeout=0.02), RpcTimeout),
            "waiting.late": (cluster.waiting.late.options(timeout=0), RpcTimeout),
        }
        for name, (method, kind) in dropped.items():
            with capturedLogs() as events:
                failure = await self.dropped(method)
            lines = [formatEvent(each) for each in events if each["log_namespace"] == "txservices.awaited"]
            text = f"the call of {name} failed, and nobody awaited it: {kind.__name__}: {failure.value}"
            self.assertEqual(lines, [text])
            self.assertEqual([each for each in events if each["log_namespace"] == "twisted.internet.defer"], [])
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
        for answer in answers:  # none, if its time was over before it began
            answer.callback(None)

    async def dropped(self, method: Any) -> Any:
        """The failure of a call whose Deferred is gone when that has failed."""
        failed = Heard()
        method().addErrback(lambda failure: failed(failure) or failure)
        [failure] = await failed.wait()
        await deferLater(reactor, 0)
        return failure

    async def test_awaited(self) -> None:
        """One that is awaited is not told, be it awaited before it fails or after."""
        cluster = await self.cluster()
        early, late = (cluster.nobody.method() for _ in range(2))
        with self.assertRaises(UnknownService):
            await early
        await self.assertFailure(cluster.nobody.method(), UnknownService)
        self.assertTrue(late.called)
        with self.assertRaises(UnknownService):
            await late
        del early, late
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_call_async_error(self) -> None:
        """An error is raised by each ``result()``; one that nobody asks for is a line in the log."""
        cluster = await self.cluster()
        reply = cluster.nobody.method.call_async()
        for _ in range(2):
            with self.assertRaises(UnknownService):
                await reply.result()
        dropped = cluster.nobody.method.call_async()
        with self.assertRaises(UnknownService):
            await dropped.waiting.wait()

    async def test_failure_that_nobody_asked_for(self) -> None:
        """The error of a ``call_async`` is logged if nobody asks for it, in its caller's context; and only then."""
        await self.start(Service)
        cluster = await self.cluster()
        caller: ContextVar[str] = ContextVar("caller", default="nobody")
        lines = Heard()

        def observe(event: Any) -> None:
            if event["log_level"] is LogLevel.error:
                lines((caller.get(), event["log_format"].format(**event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

        def in_context(method: Any) -> Any:
            caller.set("me")
            return method.call_async(1)

        async def drop(method: Any, ask: bool) -> None:
            """Make a call, and forget its reply when it has come."""
            reply = copy_context().run(in_context, method)
            answer = reply.result() if ask else reply.waiting.wait()
            await answer.addErrback(lambda failure: failure.trap(UnknownService))

        await drop(cluster.service.plain, ask=False)
        await drop(cluster.nobody.method, ask=True)
        await drop(cluster.nobody.other, ask=False)
        ((told, line),) = await lines.wait()
        self.assertEqual(told, "me")
        self.assertTrue(line.startswith("nobody.other failed, and nobody asked: "), line)

    async def test_forked(self) -> None:
        """After a fork a reply that has come can be asked for; one that has not is its parent's."""
        _, heard, answers = await self.waiting_service()
        cluster = await self.cluster()
        first, second = cluster.waiting.method.call_async(), cluster.waiting.method.call_async()
        await heard.wait(2)
        answers[0].callback(1)
        self.assertEqual(await first.result(), 1)
        with mock.patch("os.getpid", lambda: 0):
            self.assertEqual(self.successResultOf(first.result()), 1)
            with self.assertRaises(RpcConnectionError) as raised:
                second.result()
        self.assertIn("waiting.method", str(raised.exception))
        answers[1].callback(2)
        self.assertEqual(await second.result(), 2)

    async def test_unserializable_arguments(self) -> None:
        """Arguments that can't be written raise before anything is sent, and the proxy goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        for unserializable in (object(), {1}):
            with self.assertRaises(EncodeError):
                cluster.service.plain(unserializable)
        self.assertEqual(client_of(cluster).pending, {})
        self.assertEqual(await cluster.service.plain(1), 1)

    async def test_header_that_cannot_be_carried(self) -> None:
        """A header value that AMQP has no type for raises, leaves nothing behind, and the proxy goes on."""
        await self.start(Service)
        cluster = await self.cluster()
        with self.assertRaises(ValueError):
            cluster.service.plain.options(headers={"x": object()})(1)
        self.assertEqual(client_of(cluster).pending, {})
        self.assertEqual(await cluster.service.plain(1), 1)

    async def test_names_that_are_no_names(self) -> None:
        """Services are had by attribute and by item; private names of Python's are no methods."""
        cluster = await self.cluster()
        self.assertEqual(repr(cluster["a-b"].method), "<proxy method: a-b.method>")
        self.assertEqual(repr(cluster.a), "<proxy service: a>")
        self.assertFalse(hasattr(cluster.a, "__wrapped__"))
        self.assertFalse(hasattr(cluster, "__wrapped__"))
        self.assertIs(cluster.a.method, cluster.a.method)  # made once

    async def test_blocking_worker(self) -> None:
        """In a blocking service, calls, replies and dispatches wait in the thread and give values."""
        heard = await self.tap("blocking.events")

        class Blocking:
            name = "blocking"
            blocking = True
            other = RpcProxy("other")
            dispatch = EventDispatcher()

            @rpc
            def method(self, value):
                told = self.dispatch("type", value)
                reply = self.other.identify.call_async(value)
                try:
                    self.other.fail()
                except RemoteError as error:
                    return [self.other.identify(value), reply.result(), str(error), told]

        await self.start(Blocking, Other)
        value = await (await self.cluster()).blocking.method(1)
        self.assertEqual(value, ["other 1", "other 1", "Custom there", None])
        self.assertEqual([message.body for message in await heard.wait()], [b"1"])
        self.flushLoggedErrors(Custom)


class OptionTests(ServicesCase):
    """How a call is sent, as far as the proxy may say."""

    async def test_options(self) -> None:
        """A proxy's options are on its messages; where they go and are answered to can't be changed by them."""

        class Optional:
            name = "optional"
            service = RpcProxy(  # type: ignore[call-arg]  # the mistake
                "service", priority=3, headers={"h": 1}, exchange="x", routing_key="x", mandatory=False, reply_to="x",
                correlation_id="x", timeout=5,
            )  # fmt: skip

            @rpc
            def method(self):
                return self.service.plain.options(priority=4, timeout=None)(1)

            @rpc
            def method_with_less(self):
                return self.service.plain(1)

        await self.start(Service, Optional)
        tap = await self.tap("nameko-rpc", "service.plain")
        cluster = await self.cluster()
        self.assertEqual([await cluster.optional.method(), await cluster.optional.method_with_less()], [1, 1])
        first, second = [message.properties for message in await tap.wait(2)]
        self.assertEqual((first["priority"], first.get("expiration"), first["headers"]["h"]), (4, None, 1))
        self.assertEqual((second["priority"], second["expiration"], second["headers"]["h"]), (3, "5000", 1))

    def test_of_a_proxy_and_of_a_call(self) -> None:
        """Headers of a proxy are below the context's, those of one call above.

        The broker is told of the call's timeout, unless an expiration says otherwise.
        """
        sent: list[Sending] = []
        service = ServiceProxy(lambda *call: sent.append(call[-1]), "s", default_options({}, {"headers": {"p": 1}}))
        for timeout, others, expiration in ((0.5, {}, "500"), (None, {}, None), (2, {"expiration": 60}, "60000")):
            service.method.options(headers={"c": 2}, timeout=timeout, **others)()
            sending = sent.pop()
            self.assertEqual((sending.headers, sending.call_headers), ({"p": 1}, {"c": 2}))
            self.assertEqual((sending.timeout, sending.properties["expiration"]), (timeout, expiration))

    async def test_unknown_option(self) -> None:
        """An option that means nothing is refused when the service starts, with those there are."""

        class Wrong:
            name = "wrong"
            service = RpcProxy("service", prioritty=3)  # type: ignore[call-arg]  # the mistake

            @rpc
            def method(self):
                pass

        with self.assertRaises(ConfigurationError) as raised:
            await self.start(Wrong)
        self.assertIn("wrong.service: there is no option 'prioritty'", str(raised.exception))
