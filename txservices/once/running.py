"""``Once``: the messages of one entrypoint that run now, and those that it has handled."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from txservices.amqp.entities import Message

__all__ = ["Once", "id_of"]

log = Logger()

REMEMBERED_MAX = 100_000  # messages that an entrypoint knows to be handled
REMEMBERED_AGE = 86_400.0  # seconds, a day, after which one is forgotten


def id_of(message: Any) -> str | None:
    """The id by which a message is known when it comes again; None if it has none."""
    message_id = None if message is None else message.properties.get("message_id")
    return message_id if isinstance(message_id, str) and message_id else None


class Once:
    """Keeps the duplicates of an entrypoint's messages from running.

    A duplicate of a message that runs waits until that has ended. It is acked if that was handled; else it goes back to
    its queue, and is handled when it comes again.

    Args:
        ack: acks a message.
        remembers: whether the handled messages are known here. If not, a ``OnceStore`` knows them.
    """

    def __init__(self, clock: Any, ack: Callable[[Message], None], remembers: bool) -> None:
        self.clock = clock
        self.ack = ack
        self.remembers = remembers
        self.running: dict[str, list[Message]] = {}  # by id, each with its duplicates
        self.handled: OrderedDict[str, float] = OrderedDict()  # by id: when; the oldest first

    def begins(self, message: Message) -> bool:
        """Whether a message is to run. If not, it is settled here, now or later."""
        message_id = id_of(message)
        if message_id is None:
            return True
        waiting = self.running.get(message_id)
        if waiting is not None:
            waiting.append(message)
            log.debug("{delivery} waits for the one with its id, which runs now", delivery=message)
            return False
        self.forget_old()
        if message_id in self.handled:
            log.debug("{delivery} was handled before: it is acked and not run", delivery=message)
            self.ack(message)
            return False
        self.running[message_id] = []
        return True

    def succeeded(self, message: Message, settle: Callable[[], Any]) -> None:
        """A message has been handled, and is settled by this."""
        message_id = id_of(message)
        if self.remembers and message_id in self.running:
            self.handled[message_id] = self.clock.seconds()
            if len(self.handled) > REMEMBERED_MAX:
                self.handled.popitem(last=False)
        settle()
        self.ended(message)

    def lost(self, message: Message, settle: Callable[[Exception], Any], error: Exception) -> None:
        """What a message's handler has published did not get out: it has not been handled."""
        self.ended(message)
        settle(error)

    def ended(self, message: Message) -> None:
        """A message runs no more: see to its duplicates."""
        message_id = id_of(message)
        if message_id is None:
            return
        for duplicate in self.running.pop(message_id, ()):
            if message_id in self.handled:
                self.ack(duplicate)
            else:
                duplicate.reject(requeue=True)

    def forget_old(self) -> None:
        before = self.clock.seconds() - REMEMBERED_AGE
        while self.handled and next(iter(self.handled.values())) < before:
            self.handled.popitem(last=False)
