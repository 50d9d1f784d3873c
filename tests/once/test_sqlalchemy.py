"""``SqlOnceStore``: a mark is committed and undone with the work of its worker."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from twisted.internet.threads import deferToThread

from tests import processes
from tests.services import OnRabbitMQ, ServicesCase
from txservices import DependencyProvider, WorkerContext, event_handler
from txservices.once.sqlalchemy import SqlOnceStore, handled
from txservices.testing.waiting import Heard

ASYNCIO = """
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from txservices import DependencyProvider, event_handler
from txservices.once.sqlalchemy import SqlOnceStore, handled


class Database(DependencyProvider):
    async def setup(self):
        self.engine = create_async_engine(self.container.config["DATABASE_URL"])
        async with self.engine.begin() as connection:
            await connection.run_sync(handled.metadata.create_all)

    def get_dependency(self, worker_ctx):
        session = worker_ctx.data["session"] = AsyncSession(self.engine)
        return session

    async def worker_teardown(self, worker_ctx):
        await worker_ctx.data.pop("session").close()

    async def stop(self):
        await self.engine.dispose()


class Listener:
    name = "listener"
    session = Database()
    marks = SqlOnceStore()

    @event_handler("source", "type", once="marks")
    async def hear(self, data):
        print("heard", data, flush=True)
        await self.session.commit()
"""


class Database(DependencyProvider[Session]):
    """Injects a session on a database of a file; what a worker has not committed is undone."""

    def setup(self) -> Any:
        self.engine = create_engine(self.container.config["DATABASE_URL"])
        self.sessions: dict[WorkerContext, Session] = {}
        return deferToThread(handled.metadata.create_all, self.engine)

    def get_dependency(self, worker_ctx: WorkerContext) -> Session:
        session = self.sessions[worker_ctx] = Session(self.engine)
        return session

    def worker_teardown(self, worker_ctx: WorkerContext) -> Any:
        return deferToThread(self.sessions.pop(worker_ctx).close)

    def stop(self) -> None:
        self.engine.dispose()


def listener(heard: Heard, fails: list[str]) -> type:
    """A service that fails before its commit, or forgets it, as long as it is told so."""

    class Listener:
        name = "listener"
        session = Database()
        marks = SqlOnceStore("session")

        @event_handler("source", "type", once="marks")
        def hear(self, data):
            heard(data)
            how = fails.pop() if fails else ""
            if how == "raise":
                raise ValueError("not yet")
            if how != "forget":
                self.session.commit()

    return Listener


class SqlTests(ServicesCase):
    """Marks in SQLite, of sessions that block."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.abspath(self.mktemp())
        self.config["DATABASE_URL"] = f"sqlite:///{self.path}"

    async def publish(self, body: bytes, message_id: str = "one") -> None:
        properties = {"content_type": "application/json", "message_id": message_id}
        await self.publisher.publish("source.events", "type", body, properties, mandatory=True)

    def marks(self) -> list[tuple[str, str]]:
        engine = create_engine(self.config["DATABASE_URL"])
        with Session(engine) as session:
            rows = [(row[0], row[1]) for row in session.execute(select(handled.c.entrypoint, handled.c.message_id))]
        engine.dispose()
        return sorted(rows)

    async def test_with_the_work(self) -> None:
        """The mark is there once the work is committed; then a duplicate does not run, in another process either."""
        heard, fails = Heard(), ["forget", "raise"]
        (container,) = await self.start(listener(heard, fails))
        self.publisher = self.connections().publisher
        duplicate = self.logged("is not run: the message one has been handled before")
        for number in (1, 2):
            await self.publish(b"1")
            await heard.wait(number)
        await self.publish(b"2")
        self.assertEqual(await heard.wait(3), [1, 1, 2])
        await self.publish(b"3")
        await duplicate.wait()
        await container.stop()
        self.assertEqual((self.marks(), heard.things), ([("listener.hear", "one")], [1, 1, 2]))
        await self.start(listener(heard, fails))
        await self.publish(b"4")
        await duplicate.wait(2)
        await self.publish(b"5", "two")
        self.assertEqual(await heard.wait(4), [1, 1, 2, 5])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_marked_meanwhile(self) -> None:
        """If another process has marked it between the look and the mark, it is a duplicate."""
        heard = Heard()
        service: Any = listener(heard, [])

        class Late(SqlOnceStore):
            async def seen(self, worker_ctx: WorkerContext, message_id: str) -> bool:
                return False

        service.marks = Late()
        await self.start(service)
        self.publisher = self.connections().publisher
        duplicate = self.logged("is not run: the message one has been handled before")
        for body in (b"1", b"2"):
            await self.publish(body)
            await (heard.wait() if body == b"1" else duplicate.wait())
        self.assertEqual(heard.things, [1])

    async def test_asyncio(self) -> None:
        """The same with an asynchronous session, on asyncio's reactor."""
        folder = self.mktemp()
        os.makedirs(folder)
        with open(os.path.join(folder, "listening.py"), "w", encoding="utf-8") as file:
            file.write(ASYNCIO)
        defines = [f"AMQP_URI={await self.uri()}", f"DATABASE_URL=sqlite+aiosqlite:///{self.path}"]
        options = [word for each in defines for word in ("--define", each)]
        service = processes.txservices(self, "run", "--reactor=asyncio", *options, "listening", cwd=folder)
        await service.line("running: listener")
        self.publisher = self.connections().publisher
        for body, message_id in ((b"1", "one"), (b"2", "one"), (b"3", "two")):
            await self.publish(body, message_id)
        await service.line("heard 3")
        self.assertEqual(await service.end(), 0, str(service))
        self.assertNotIn("heard 2", str(service))
        self.assertEqual(self.marks(), [("listener.hear", "one"), ("listener.hear", "two")])

    async def uri(self) -> str:
        return await self.stage.listen()

    def test_without(self) -> None:
        """Where SQLAlchemy is not installed, the error of the import says what to install."""
        code = "import sys; sys.modules['sqlalchemy'] = None; import txservices.once.sqlalchemy"
        done = subprocess.run([sys.executable, "-c", code], cwd=processes.ROOT, capture_output=True, text=True)
        last = done.stderr.strip().splitlines()[-1]
        words = "ImportError: SqlOnceStore needs SQLAlchemy: pip install 'txservices[sqlalchemy]' ("
        self.assertEqual(last[: len(words)], words)


class SqlOnRabbitMQ(OnRabbitMQ, SqlTests):
    """The same on RabbitMQ."""

    async def uri(self) -> str:
        return str(self.config["AMQP_URI"])
