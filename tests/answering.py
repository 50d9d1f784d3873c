"""Services that the RPC tests call, and a test with one whose method waits for it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from tests.services import Recorded, ServicesCase
from txservices.amqp.entities import Exchange, Queue
from txservices.dependency_providers import Config
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard

MESSAGE = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 0}


class Custom(Exception):
    """An application's own error."""


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


class Service:
    """The service that the tests call."""

    name = "service"

    other = RpcProxy("other")
    config = Config()

    @rpc
    def echo(self, *args, **kwargs):
        return [list(args), kwargs]

    @rpc
    def plain(self, value):
        return value

    @rpc
    async def coroutine(self, value):
        return await self.other.identify(value)

    @rpc
    @inlineCallbacks
    def generator(self, value):
        result = yield self.other.identify(value)
        return result

    @rpc
    def deferred(self, value):
        return self.other.identify(value)

    @rpc
    def fail(self):
        raise Custom("a", 1)

    @rpc(expected_exceptions=Custom)
    def fail_expectedly(self):
        raise Custom("expected")

    @rpc
    def fail_there(self):
        return self.other.fail()

    @rpc
    def unserializable(self):
        return {1, 2}.__iter__()

    @rpc
    def unprintable(self):
        return Unprintable()

    @rpc
    def leave(self):
        raise SystemExit(3)

    @rpc
    def two(self, a, b=1):
        return [a, b]

    @rpc
    def named(self, a, *, b):
        return [a, b]


class Other:
    """The service that Service calls."""

    name = "other"

    @rpc
    def identify(self, value):
        return f"other {value}"

    @rpc
    def fail(self):
        raise Custom("there")


class AnsweringCase(ServicesCase):
    """A test whose calls are answered when it says so."""

    async def waiting_service(self, **config: Any) -> tuple[Any, Heard, list[Deferred[Any]]]:
        """A service whose method waits for the test."""
        heard, answers = Heard(), []

        class Waiting:
            name = "waiting"

            @rpc
            def method(self):
                answer: Deferred[Any] = Deferred()
                answers.append(answer)
                heard(answer)
                return answer

        (container,) = await self.start(Waiting, **config)
        return container, heard, answers

    async def assert_empty(self, service: str) -> None:
        """No request is left in a service's queue: the first out of it is the one put in now."""
        connections = self.connections()
        left = Recorded()
        queue = Queue(f"rpc-{service}", Exchange("nameko-rpc", type="topic"), f"{service}.*")
        await connections.consume(queue, left, 10).ready
        await connections.publisher.publish("nameko-rpc", f"{service}.last", b"", {}, mandatory=True)
        self.assertEqual([message.routing_key for message in await left.wait()], [f"{service}.last"])
