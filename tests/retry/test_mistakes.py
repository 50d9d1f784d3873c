"""Mistakes of a service's author about retries and delays, each told in one line before the service runs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.services import ServicesCase
from txservices.breakers import CircuitBreaker
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider
from txservices.httpclient import HttpClient
from txservices.messaging import Publisher, Queue, consume
from txservices.retry import Retry
from txservices.rpc import ClusterRpc, RpcProxy, rpc
from txservices.timer import timer
from txservices.web.handlers import http

NO_POLICIES: tuple[tuple[Any, str], ...] = (
    (Retry, r"retry is the class Retry: write Retry\(\)"),
    (Retry(after=30), r"retry is Retry\(after=30\): after is for a method that raises it, give delay"),
    (3, "retry is 3: give a Retry, or "),
    ({}, "retry is {}: give a Retry, or "),
    ([Retry()], r"retry is \[Retry\('it asks for another attempt'\)\]: give a Retry, or "),
    ("five", "retry is 'five': give a Retry, or "),
    (ValueError, "retry is <class 'ValueError'>: give a Retry, or "),
)

NO_DELAYS: tuple[tuple[Any, str], ...] = (
    (-1, "delay is -1: give seconds from 0 to 4,000,000, or None for no delay"),
    (float("nan"), "delay is nan: give seconds from 0 to 4,000,000"),
    (float("inf"), "delay is inf: give seconds from 0 to 4,000,000"),
    (2**32 / 1000, "delay is 4294967.296: give seconds from 0 to 4,000,000"),
    (10**400, "delay is 10+: give seconds from 0 to 4,000,000"),
    ("60", "delay is '60': give seconds as a number, or None for no delay"),
    (True, "delay is True: give seconds as a number"),
)


class MistakesCase(ServicesCase):
    async def refused(self, line: str, service: type, **config: Any) -> None:
        """The service does not start, and the mistake is told in that line."""
        started = Deferred.fromCoroutine(self.start(service, **config))
        error = await self.assertFailure(started, ConfigurationError)
        (mistake,) = error.args
        self.assertRegex(mistake, rf"^{line}")
        self.assertNotIn("\n", mistake)


class EntrypointTests(MistakesCase):
    """``retry=`` of an entrypoint, and ``RETRY`` for its method."""

    async def test_no_policy(self) -> None:
        """A ``retry=`` that is no policy is refused, on each kind of entrypoint that takes one."""
        for kind in (
            rpc,
            lambda **options: event_handler("a", "b", **options),
            lambda **options: consume(Queue("q"), **options),
        ):
            for given, line in (*NO_POLICIES, (True, "retry is True: give a Retry, or False for none")):

                class Service:
                    name = "s"

                    @kind(retry=given)
                    def method(self, data): ...

                await self.refused(rf"s\.method: {line}", Service)

    async def test_streams(self) -> None:
        """A stream's messages can't come again to one of its readers alone."""
        stream = Queue("stream", arguments={"x-queue-type": "stream"})
        written: list[tuple[Any, Any]] = [({"retry": Retry()}, {}), ({}, {"RETRY": {"attempts": 3}})]
        for options, config in written:

            class Service:
                name = "s"

                @consume(stream, **options)
                def method(self, data): ...

            line = r"s\.method: it can't have retries, for its queue is a stream: .* Write retry=False$"
            await self.refused(line, Service, **config)

    async def test_methods(self) -> None:
        """``RETRY`` names methods that messages or calls come to."""

        class Service:
            name = "s"

            @rpc
            def call(self): ...

            @timer(interval=1000)
            def tick(self): ...

            @http("GET", "/")
            def get(self, request): ...

            def plain(self): ...

        for method in ("tick", "get", "plain", "name"):
            line = rf"RETRY: s\.{method}: it has none of @rpc, @event_handler and @consume, so it is never tried again"
            for written in ({"attempts": 3}, False):
                await self.refused(line, Service, RETRY={f"s.{method}": written})
        await self.refused(r"RETRY: s\.other: the service s has no method other", Service, RETRY={"s.other": {}})


class DependencyTests(MistakesCase):
    """Options of what sends calls and messages."""

    async def with_dependency(self, dependency: DependencyProvider, line: str) -> None:
        class Service:
            name = "s"
            x = dependency

            @rpc
            def method(self): ...

        await self.refused(rf"s\.x: {line}", Service)

    async def test_calls(self) -> None:
        """Wrong options of a proxy."""
        for given, line in NO_POLICIES:
            await self.with_dependency(RpcProxy("y", retry=given), line)
        table: list[tuple[dict[str, Any], str]] = [
            ({"breaker": True}, "breaker is True: give a CircuitBreaker, or False for none"),
            ({"breaker": CircuitBreaker}, "breaker is <class .*: give a CircuitBreaker, or False for none"),
            ({"persistent": "no"}, "persistent is 'no': give True or False"),
            ({"delay": 5}, "delay is 5: a call can't have one, for its caller waits; an event can"),
            ({"timeout": "5"}, "timeout is '5': give seconds as a number"),
            ({"retries": 5}, "there is no option 'retries' for sending messages; there are "),
        ]
        for options, line in table:
            await self.with_dependency(RpcProxy("y", **options), line)
            await self.with_dependency(ClusterRpc(**options), line)

    async def test_calls_out(self) -> None:
        """Wrong policies of the client of HTTP."""
        for given, line in NO_POLICIES:
            await self.with_dependency(HttpClient("http://localhost", retry=given), line)

    async def test_delays(self) -> None:
        """Delays that can't be, of all messages of a publisher or a dispatcher."""
        for given, line in NO_DELAYS:
            await self.with_dependency(Publisher(delay=given), line)
            await self.with_dependency(EventDispatcher(delay=given), line)
        for sender in (Publisher, EventDispatcher):
            line = "a message can't have both a delay and an expiration"
            await self.with_dependency(sender(delay=5, expiration=3), line)
