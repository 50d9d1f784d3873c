"""The same on asyncio's reactor, with an asynchronous driver: a session for each worker, and no threads."""

from database import Base, Order
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from txservices import DependencyProvider, rpc


class Database(DependencyProvider[AsyncSession]):
    async def setup(self):
        url = self.container.config.get("DATABASE_URL", "sqlite+aiosqlite:///orders.db")
        self.engine = create_async_engine(url, pool_size=self.container.max_workers)
        self.sessions = {}
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    def get_dependency(self, worker_ctx):
        session = self.sessions[worker_ctx] = AsyncSession(self.engine)
        return session

    async def worker_teardown(self, worker_ctx):
        await self.sessions.pop(worker_ctx).close()

    async def stop(self):
        await self.engine.dispose()


class Orders:
    name = "orders"

    session = Database()

    @rpc
    async def place(self, item):
        async with self.session.begin():
            order = Order(item=item)
            self.session.add(order)
            await self.session.flush()
            return order.id

    @rpc
    async def count(self, item):
        return await self.session.scalar(select(func.count()).where(Order.item == item))
