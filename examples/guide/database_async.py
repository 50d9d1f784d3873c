"""The same without `blocking`: methods wait for a Deferred, and only the work with the session is done in a thread."""

from functools import partial

from database import Base, Order
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session
from twisted.internet.threads import deferToThread

from txservices import DependencyProvider, EventDispatcher, rpc


class Transactions(DependencyProvider):
    """Injects a function: `await self.transaction(work, 1)` calls `work(session, 1)` in a thread, and commits."""

    def setup(self):
        self.engine = create_engine(self.container.config.get("DATABASE_URL", "sqlite:///orders.db"))
        return deferToThread(Base.metadata.create_all, self.engine)

    def get_dependency(self, worker_ctx):
        return partial(deferToThread, self.run)

    def run(self, work, *args):
        with Session(self.engine) as session, session.begin():
            return work(session, *args)

    def stop(self):
        self.engine.dispose()


def insert(session, item):
    order = Order(item=item)
    session.add(order)
    session.flush()
    return order.id


def count(session, item):
    return session.scalar(select(func.count()).where(Order.item == item))


class Orders:
    name = "orders"

    transaction = Transactions()
    dispatch = EventDispatcher()

    @rpc
    async def place(self, item):
        order_id = await self.transaction(insert, item)
        await self.dispatch("placed", {"id": order_id})
        return order_id

    @rpc
    async def count(self, item):
        return await self.transaction(count, item)
