"""Services for tests of traces: a shop, which is a chain of calls, events and messages; one that says what it sees."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.context import attach
from opentelemetry.propagate import inject
from twisted.internet.defer import Deferred, inlineCallbacks

from tests.services import ServicesCase
from txservices.events import EventDispatcher, event_handler
from txservices.messaging import Publisher, Queue, consume
from txservices.rpc import RpcProxy, rpc
from txservices.testing.waiting import Heard
from txservices.web.handlers import http

handled, began = Heard(), Heard()


class Front:
    name = "front"

    shop = RpcProxy("shop")

    @http("GET,POST", "/buy/<int:number>")
    async def buy(self, request: Any, number: int) -> Any:
        return 200 if number < 500 else number, str(await self.shop.sell(number))

    @http("GET", "/plain")
    def plain(self, request: Any) -> str:
        return "plain"

    @http("GET", "/fails", expected_exceptions=KeyError)
    def fails(self, request: Any) -> str:
        raise {"k": KeyError, "v": ValueError}[request.args["with"]]("no")


class Shop:
    name = "shop"

    stock = RpcProxy("stock")
    dispatch = EventDispatcher()

    @rpc
    async def sell(self, number: int) -> int:
        await self.stock.take(number)
        await self.dispatch("sold", number)
        return number


class Stock:
    name = "stock"

    parcels = Publisher(queue=Queue("parcels"), routing_key="parcels")

    @rpc(expected_exceptions=KeyError)
    async def take(self, number: int) -> None:
        if number == 13:
            raise KeyError("none left")
        if number == 14:
            raise ValueError("amqp://user:secret@host/: " + "x" * 1_000_000)

    @event_handler("shop", "sold")
    async def sold(self, number: int) -> None:
        await self.parcels(number)

    @consume(Queue("parcels"))
    def parcel(self, number: int) -> None:
        handled(number)


class TracesCase(ServicesCase):
    def setUp(self) -> None:
        super().setUp()
        handled.things.clear()
        began.things.clear()


class Reads:
    """Says what it sees of the trace that it is in."""

    name = "reads"

    other = RpcProxy("reads")
    dispatch = EventDispatcher()
    publish = Publisher()
    tracer: Any = None
    waiting: Deferred[None]

    def sees(self) -> list[Any]:
        here = trace.get_current_span().get_span_context()
        return [here.span_id, dict(baggage.get_all()), threading.current_thread() is threading.main_thread()]

    def inner(self) -> Any:
        with self.tracer.start_as_current_span("own"):
            return self.sees()

    @rpc
    def plain(self) -> Any:
        return self.inner()

    @rpc
    async def awaits(self) -> Any:
        began()
        await self.waiting
        return self.inner()

    @rpc
    @inlineCallbacks
    def yields(self) -> Any:
        began()
        yield self.waiting
        return self.inner()

    @rpc(blocking=True)
    def blocks(self) -> Any:
        return self.inner()

    @rpc
    async def calls(self) -> Any:
        with self.tracer.start_as_current_span("own"):
            return await self.other.plain()

    @rpc(blocking=True)
    def blocks_and_calls(self) -> Any:
        with self.tracer.start_as_current_span("own"):
            return self.other.plain()

    @rpc
    async def says_more(self, more: str) -> Any:
        attach(baggage.set_baggage("more", more) if more else baggage.clear())
        return await self.other.plain()

    @rpc
    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        inject(found)
        return found
