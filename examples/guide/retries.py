"""Payments: a bank that fails is asked again later, an order that can't be paid is parked, and a reminder waits."""

from txservices import EventDispatcher, Reject, Retry, RpcProxy, event_handler

DAY = 24 * 60 * 60


class Payments:
    name = "payments"

    bank = RpcProxy("bank", timeout=10)
    dispatch = EventDispatcher()

    @event_handler("shop", "ordered", retry=Retry(attempts=6, delay=0.5, growth=4))
    async def ordered(self, order):
        answer = await self.bank.charge(order["card"], order["amount"])  # if it raises: again in 0.5, 2, 8, … seconds
        if answer == "refused":
            raise Reject(f"the bank refuses {order['id']}")  # another attempt would not help
        if answer == "closed":
            raise Retry(after=60 * 60)  # that counts as one of the six
        await self.dispatch("reminder_due", order, delay=2 * DAY)

    @event_handler("payments", "reminder_due")
    def remind(self, order):
        print(f"two days ago: {order['id']}")
