"""Decodes long bodies in a thread: in the reactor, one would hold up everything else for seconds.

    receive(message) -> read: LongBody -> add(message) -> decode, in a thread -> receive(message, decoded)

The message is not settled meanwhile. Messages of the same consumer that come after it wait for it, so that all are
received in their order: until then ``read`` takes each of them for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.amqp.entities import Message
from txservices.exceptions import DecodeError
from txservices.serialization.bounds import LongBody
from txservices.utils.background import in_background
from txservices.utils.waiting import Waiters

log = Logger()

Decoded = Callable[[], Any]  # gives a body that is decoded, or raises ``DecodeError``


class Places(Protocol):
    """The places of a service's workers. A message that waits here takes one, so that few bodies are in memory."""

    def hold(self) -> float:
        """Take a place. Gives since when the message waits, by the clock."""

    def release(self, since: float, receive: Callable[[], None]) -> None:
        """Give a place back, and call ``receive``, which may begin a worker there: it has waited since then."""


class LongBodies:
    """The messages of one consumer that wait for a long body.

    Args:
        decode: ``Serializers.decode``.
        receive: called with each message and a function that gives its body or raises ``DecodeError``.
        places: of the workers that the messages are for; None if there are none.

    Attributes:
        read: ``decode`` for ``receive`` to call with ``here``. While messages wait it raises ``LongBody`` for any body.
        waiting: the messages in their order, each with the time since which it waits. The body of the first one is
            being decoded.
    """

    def __init__(
        self,
        decode: Callable[..., Any],
        receive: Callable[[Message, Decoded], None],
        places: Places | None = None,
    ) -> None:
        self.decode = self.read = decode
        self.receive = receive
        self.places = places
        self.waiting: deque[tuple[Message, float]] = deque()
        self.idle: Waiters[None] = Waiters()

    def add(self, message: Message) -> None:
        """Decode this message's body after those that wait."""
        self.waiting.append((message, 0.0 if self.places is None else self.places.hold()))
        self.read = behind_others
        if len(self.waiting) == 1:
            self.begin()

    def drain(self) -> Deferred[None]:
        """Fires when every message that waits has been received."""
        return self.idle.wait() if self.waiting else succeed(None)

    def begin(self) -> None:
        message, _ = self.waiting[0]
        in_background(self.decode, *parts_of(message)).addBoth(self.decoded)

    def decoded(self, result: Any) -> None:
        """Pass the first message on, and those behind it up to the next one whose body is long."""
        decoded: Decoded = result.raiseException if isinstance(result, Failure) else partial(give, result)
        self.pass_on(decoded)
        while self.waiting:
            message, _ = self.waiting[0]
            try:
                decoded = partial(give, self.decode(*parts_of(message), True))
            except LongBody:
                self.begin()
                return
            except DecodeError:
                decoded = Failure().raiseException
            self.pass_on(decoded)
        self.read = self.decode
        self.idle.fire(None)

    def pass_on(self, decoded: Decoded) -> None:
        message, since = self.waiting[0]
        try:
            if self.places is None:
                self.receive(message, decoded)
            else:
                self.places.release(since, partial(self.receive, message, decoded))
        except Exception:
            log.failure("{delivery} was not taken, rejected", delivery=message)
            message.reject()
        self.waiting.popleft()  # last: what is delivered meanwhile comes after it


def behind_others(*parts: Any) -> Any:
    raise LongBody()


def parts_of(message: Message) -> tuple[Any, ...]:
    """The arguments for ``decode``."""
    properties = message.properties
    content_type, content_encoding = properties.get("content_type"), properties.get("content_encoding")
    return content_type, content_encoding, message.body, properties.get("headers")


def give(value: Any) -> Any:
    return value
