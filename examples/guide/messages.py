"""A shop publishes orders; invoices are written from a queue, where an order that fails is tried again later."""

from txservices import Exchange, Publisher, Queue, Reject, Retry, consume, rpc

ORDERS = Exchange("shop.orders", type="topic")

NEW = Queue(
    "invoices.new",
    exchange=ORDERS,
    routing_key="order.placed.*",
    arguments={"x-max-length": 100_000, "x-overflow": "reject-publish"},
)


class Shop:
    name = "shop"

    publish = Publisher(exchange=ORDERS, mandatory=True)

    @rpc
    async def place(self, country, total):
        await self.publish({"total": total}, routing_key=f"order.placed.{country}")


class Invoices:
    name = "invoices"

    publish = Publisher(exchange=Exchange("invoices", type="fanout"))

    @consume(NEW, retry=Retry(attempts=5, delay=1))  # again after 1, 2, 4 and 8 seconds, if it raises
    async def write(self, order):
        if order["total"] <= 0:
            raise Reject(f"a total of {order['total']}")  # another attempt would not help
        await self.publish({"amount": order["total"], "text": "Thank you!"})
