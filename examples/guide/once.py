"""Payments are booked once, although their event may come twice: the mark is committed with the booking."""

from database import Database, Order
from twisted.internet.threads import deferToThread

from txservices import Retry, event_handler
from txservices.once.sqlalchemy import SqlOnceStore, handled


class Books(Database):
    async def setup(self):
        await super().setup()
        await deferToThread(handled.metadata.create_all, self.engine)  # the table of what has been handled


class Bookkeeper:
    name = "bookkeeper"
    blocking = True

    session = Books()
    marks = SqlOnceStore("session")

    @event_handler("payments", "received", once="marks", retry=Retry(attempts=5, delay=1))
    def book(self, payment):
        self.session.add(Order(item=payment["item"]))
        self.session.commit()  # the booking and the mark; if this fails, neither is there, and the event comes again
