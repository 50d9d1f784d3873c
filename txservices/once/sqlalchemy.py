"""``SqlOnceStore``: handled messages are rows of a table, written in the worker's own session.

This module needs SQLAlchemy: ``pip install 'txservices[sqlalchemy]'``.

The table is ``handled``; make it with your own, as by ``handled.metadata.create_all(engine)``. Nothing deletes its
rows: do so where ``handled_at`` is longer ago than a duplicate can come.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread

from txservices.exceptions import AlreadyHandled
from txservices.extensions import WorkerContext
from txservices.once.store import OnceStore

try:
    from sqlalchemy import Column, DateTime, MetaData, String, Table, func, insert, select
    from sqlalchemy.exc import IntegrityError
    from sqlalchemy.orm import Session
except ImportError as error:
    raise ImportError(f"SqlOnceStore needs SQLAlchemy: pip install 'txservices[sqlalchemy]' ({error})") from error

__all__ = ["SqlOnceStore", "handled"]

ENTRYPOINT_MAX = 300  # characters of service.method
MESSAGE_ID_MAX = 255  # characters: AMQP has one byte for their length

handled = Table(
    "txservices_handled",
    MetaData(),
    Column("entrypoint", String(ENTRYPOINT_MAX), primary_key=True),
    Column("message_id", String(MESSAGE_ID_MAX), primary_key=True),
    Column("handled_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
)


class SqlOnceStore(OnceStore):
    """Marks messages in the session that another dependency injects, a ``Session`` or an ``AsyncSession``.

        session = Database()
        marks = SqlOnceStore("session")

    The mark is there when the method, or its dependency, commits the session, and is gone if it rolls back. The session
    has begun its transaction when the method is called: end it by ``session.commit()``. Where the database keeps a
    second worker with the same message waiting at its mark until the first has ended, as PostgreSQL and MySQL do, the
    message runs in one of them; where it refuses the second, as SQLite may, the second has failed.
    """

    def __init__(self, session: str = "session") -> None:
        self.session = session

    async def seen(self, worker_ctx: WorkerContext, message_id: str) -> bool:
        key = (handled.c.entrypoint == entrypoint_of(worker_ctx)) & (handled.c.message_id == message_id)
        return await self.run(worker_ctx, "scalar", select(handled.c.message_id).where(key)) is not None

    async def mark(self, worker_ctx: WorkerContext, message_id: str) -> None:
        row = {"entrypoint": entrypoint_of(worker_ctx), "message_id": message_id}
        try:
            await self.run(worker_ctx, "execute", insert(handled).values(row))
        except IntegrityError:
            await self.run(worker_ctx, "rollback")
            raise AlreadyHandled(message_id) from None

    async def run(self, worker_ctx: WorkerContext, method: str, *args: Any) -> Any:
        session = getattr(worker_ctx.service, self.session)
        call = getattr(session, method)
        if isinstance(session, Session):  # it blocks
            return await deferToThread(call, *args)
        return await call(*args)


def entrypoint_of(worker_ctx: WorkerContext) -> str:
    return f"{worker_ctx.service_name}.{worker_ctx.entrypoint.method_name}"
