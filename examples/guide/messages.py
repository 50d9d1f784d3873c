"""A shop publishes orders; invoices are written from a queue, where an order that can't be handled is tried again."""

from txservices import Exchange, Publisher, Queue, consume, rpc

ORDERS = Exchange("shop.orders", type="topic")

# When an order has come back three times, the broker moves it to this queue, where somebody can look at it.
FAILED = Queue("invoices.failed", exchange=Exchange("invoices.failed", type="fanout"))

NEW = Queue(
    "invoices.new",
    exchange=ORDERS,
    routing_key="order.placed.*",
    arguments={
        "x-queue-type": "quorum",
        "x-delivery-limit": 3,
        "x-dead-letter-exchange": "invoices.failed",
    },
)


class Shop:
    name = "shop"

    publish = Publisher(exchange=ORDERS, mandatory=True)

    @rpc
    async def place(self, country, total):
        await self.publish({"total": total}, routing_key=f"order.placed.{country}")


class Invoices:
    name = "invoices"

    publish = Publisher(exchange=Exchange("invoices", type="fanout"), declare=[FAILED])

    @consume(NEW, requeue_on_error=True)
    async def write(self, order):
        if order["total"] <= 0:
            raise ValueError(f"a total of {order['total']}")
        await self.publish({"amount": order["total"], "text": "Thank you!"})
