"""Orders, kept in a database. Each worker has a session of its own, and runs in a thread, since SQLAlchemy blocks."""

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from twisted.internet.threads import deferToThread

from txservices import DependencyProvider, rpc


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Database(DependencyProvider[Session]):
    """Injects a session. When the worker ends it is closed, and what it has not committed is undone."""

    def setup(self):
        url = self.container.config.get("DATABASE_URL", "sqlite:///orders.db")
        self.engine = create_engine(url, pool_size=self.container.max_workers)
        self.sessions = {}
        return deferToThread(Base.metadata.create_all, self.engine)

    def get_dependency(self, worker_ctx):
        # This connects to nothing yet: the session does so when the method uses it, in the method's thread.
        session = self.sessions[worker_ctx] = Session(self.engine)
        return session

    def worker_teardown(self, worker_ctx):
        return deferToThread(self.sessions.pop(worker_ctx).close)

    def stop(self):
        self.engine.dispose()


class Orders:
    name = "orders"
    blocking = True

    session = Database()

    @rpc
    def place(self, item):
        with self.session.begin():  # committed at the end of the block, before the caller has its answer
            order = Order(item=item)
            self.session.add(order)
            self.session.flush()
            return order.id

    @rpc
    def count(self, item):
        return self.session.scalar(select(func.count()).where(Order.item == item))
