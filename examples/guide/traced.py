"""A call whose trace shows what a method does, and goes on to another program by HTTP.

    pip install 'txservices[traces]'
    txservices run traced --define TRACES=true

docs/tracing.md says how to set up what sends the spans.
"""

from __future__ import annotations

from typing import Any

import treq
from opentelemetry import baggage, trace
from opentelemetry.propagate import inject

from txservices.events import EventDispatcher, event_handler
from txservices.rpc import RpcProxy, rpc
from txservices.web.handlers import http

tracer = trace.get_tracer("shop")


class Web:
    name = "web"

    shop = RpcProxy("shop")

    @http("GET", "/sell/<item>")
    async def sell(self, request: Any, item: str) -> str:
        return str(await self.shop.sell(item))


class Shop:
    name = "shop"

    dispatch = EventDispatcher()

    @rpc
    async def sell(self, item: str) -> str:
        with tracer.start_as_current_span("look up the price", attributes={"item": item}):
            price = len(item)
        await self.dispatch("sold", {"item": item, "price": price})
        return f"{item} for {price}, to {baggage.get_baggage('customer') or 'somebody'}"


class Stock:
    name = "stock"

    @event_handler("shop", "sold")
    async def sold(self, event: dict[str, Any]) -> None:
        headers: dict[str, str] = {}
        inject(headers)  # traceparent, and what goes with it
        await self.tell_supplier(event["item"], headers)

    async def tell_supplier(self, item: str, headers: dict[str, str]) -> None:
        await treq.post("https://supplier.example/orders", json=item, headers=headers)
