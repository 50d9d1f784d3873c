"""Mistakes of a service's author. Both checkers complain of each line that is marked, and of no other."""

from __future__ import annotations

from txservices import (
    ClusterRpc,
    DependencyProvider,
    EventDispatcher,
    Publisher,
    Retry,
    RpcProxy,
    event_handler,
    http,
    rpc,
    timer,
)
from txservices.amqp.entities import Queue
from txservices.messaging import consume
from txservices.testing import TestCase


class Number(DependencyProvider[int]):
    """Injects a number."""


class Service:
    """Wrong, line by line."""

    name = "service"
    number = Number()
    stock = RpcProxy("stock", prioritty=3)  # wrong
    anybody = ClusterRpc(timeout="5")  # wrong
    once_more = RpcProxy("stock", retry=5)  # wrong
    lasting = RpcProxy("stock", persistent="yes")  # wrong
    dispatch = EventDispatcher(delivery_mode="persistent")  # wrong
    publish = Publisher(routing_keys="lines")  # wrong

    @rpc(blocking="yes")  # wrong
    def first(self) -> None: ...

    @event_handler("shop")  # wrong
    def second(self, payload: object) -> None: ...

    @http("GET", "/", expected=ValueError)  # wrong
    def third(self, request: object) -> None: ...

    @timer(intervall=1)  # wrong
    def fourth(self) -> None: ...

    @consume(Queue("q"), prefetch="many")  # wrong
    def fifth(self, body: object) -> None: ...

    def sixth(self) -> str:
        return self.number  # wrong

    async def seventh(self) -> None:
        await self.publish(1, exchanges="readings")  # wrong
        await self.publish(1, priority="high")  # wrong
        await self.publish(1, delay="soon")  # wrong
        await self.dispatch("sold", 1, delays=60)  # wrong

    @rpc(retry=True)  # wrong
    def eighth(self) -> None: ...

    @event_handler("shop", "sold", retry=5)  # wrong
    def ninth(self, payload: object) -> None: ...

    @consume(Queue("q"), retry=Retry(attempt=5))  # wrong
    def tenth(self, body: object) -> None: ...

    @rpc(cancel_at_deadline="always")  # wrong
    def eleventh(self) -> None: ...

    @rpc(retry=Retry(on=ValueError()))  # wrong
    def twelfth(self) -> None: ...


class Tests(TestCase):
    """Wrong likewise."""

    async def test_first(self) -> None:
        await self.cluster(timeouts=1)  # wrong
        await self.cluster({"language": "en"}, expiration="soon")  # wrong
        await self.start(Service())  # wrong
