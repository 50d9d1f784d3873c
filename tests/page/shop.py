"""Three services under load, each for a process of its own; one of them can be told to fail."""

from __future__ import annotations

from typing import Any

from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import RemoteError, RpcTimeout
from txservices.retry import Retry
from txservices.rpc import RpcProxy, rpc
from txservices.timer import timer

SCRIPT = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


class Orders:
    """Takes orders, and sees that they are paid."""

    name = "orders"
    version = "2.4.1"
    billing = RpcProxy("billing", timeout=1)
    stock = RpcProxy("stock", timeout=1)
    dispatch = EventDispatcher()

    @rpc
    async def place(self, customer: str, items: list[str]) -> dict[str, Any]:
        """Put the items aside, charge the customer, and tell the world."""
        await self.stock.reserve(items[0])
        await self.billing.charge(customer, 99.5)
        await self.dispatch("placed", {"customer": customer, "items": items})
        return {"customer": customer, "paid": True}

    @timer(interval=0.1)
    async def customers(self) -> None:
        """Customers come by."""
        try:
            await self.place("c-1042", ["chair", "lamp"])
        except (RemoteError, RpcTimeout):
            pass


class Billing:
    """Charges customers."""

    name = "billing"
    version = "1.9.0"

    @rpc
    def charge(self, customer: str, amount: float, currency: str = "EUR") -> float:
        """Charge a customer's card."""
        return amount


class Stock:
    """Knows what there is."""

    name = "stock"
    error = ""

    @rpc
    def reserve(self, item: str, count: int = 1) -> int:
        """Put items aside."""
        if Stock.error:
            raise LookupError(Stock.error)
        return count

    @rpc
    def fail(self, text: str = SCRIPT) -> str:
        """Fail from now on, by an error with this text."""
        Stock.error = text
        return text

    @event_handler("orders", "placed", retry=Retry(attempts=1))
    def placed(self, payload: Any) -> None:
        """Have it packed."""
        if payload["items"] == ["piano"]:
            raise ValueError(SCRIPT)
