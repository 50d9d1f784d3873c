"""``OnceStore``: a dependency that knows which messages have been handled, such as a database does."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.logger import Logger

from txservices.exceptions import AlreadyHandled
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.once.running import id_of
from txservices.utils import tasks

__all__ = ["OnceStore"]

log = Logger()


class OnceStore(DependencyProvider[None]):
    """Remembers messages for the entrypoints that name it, for all instances of a service.

        class Orders:
            name = "orders"
            session = Database()
            marks = Marks()           # a subclass

            @event_handler("shop", "placed", once="marks")
            def handle(self, data): ...

    Both hooks are called before the method, when all dependencies are injected: what ``mark`` writes in the worker's
    own transaction is committed with the method's work, and undone with it.
    """

    def seen(self, worker_ctx: WorkerContext, message_id: str) -> bool | Awaitable[bool]:
        """Whether a message with that id has been handled by that worker's entrypoint."""
        raise NotImplementedError  # the subclasses know where they note it

    def mark(self, worker_ctx: WorkerContext, message_id: str) -> Any:
        """Note that it is handled. Raises ``AlreadyHandled`` if somebody else has just done so."""
        raise NotImplementedError  # likewise

    def worker_setup(self, worker_ctx: WorkerContext) -> Any:
        if getattr(worker_ctx.entrypoint, "once", None) != self.attr_name:
            return None
        message_id = id_of(worker_ctx.message)
        return None if message_id is None else self.claim(worker_ctx, message_id)

    async def claim(self, worker_ctx: WorkerContext, message_id: str) -> None:
        try:
            if await tasks.call(self.seen, worker_ctx, message_id):
                raise AlreadyHandled(message_id)
            await tasks.call(self.mark, worker_ctx, message_id)
        except AlreadyHandled as error:
            log.debug("{worker} is not run: {error}", worker=worker_ctx, error=error)
            raise
