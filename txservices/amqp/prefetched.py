"""The bytes of the messages that a service has taken and not settled, and when no more are read.

    Channel.deliver_received -> bytes -> over bytes_max: pause() -> Channel.settle -> bytes low again: resume()

Nothing is read only while a message waits for a worker. As long as a worker of the service is free, the next message
may be a call that another of its workers waits for, and must come in. A message that would have to wait can wait in the
broker as well. One that waits for the limit of its own entrypoint counts, too. For the same reason a service reads its
messages from a connection of its own, and replies come on another: whatever a worker waits for is never behind
something that is not read.

While the broker is asked something on that connection, everything is read up to the answer. What is too much then is
parked: its body is dropped, and it goes back to its queue later.
"""

from __future__ import annotations

from collections.abc import Callable

from txservices.amqp.entities import Message

LOW_PART = 0.5  # of the limit; once the messages take less, the connection is read again


class Prefetched:
    """The count for one service, and whether its connection is read.

    Args:
        bytes_max: bytes of bodies above which nothing more is read.
        waits: whether a message waits for a worker.
        pause, resume: have the connection not read, and read again.

    Attributes:
        bytes: what the bodies take that were delivered and not settled. Channels count here.
        paused: whether nothing is read.
        awaited: how many answers of the broker are waited for.
        parked: the messages that are to go back.
    """

    __slots__ = ("awaited", "bytes", "bytes_max", "closing", "parked", "pause", "paused", "resume", "waits")

    def __init__(
        self, bytes_max: int, waits: Callable[[], bool], pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self.bytes_max = bytes_max
        self.waits = waits
        self.pause = pause
        self.resume = resume
        self.bytes = 0
        self.awaited = 0
        self.paused = self.closing = False
        self.parked: list[Message] = []

    def parks(self, message: Message) -> bool:
        """Park a message that is over the limit, if it has come while an answer is waited for. Gives whether it has."""
        if not (self.awaited and self.waits()):
            return False
        self.bytes -= message.size
        message.body, message.size = b"", 0
        self.parked.append(message)
        return True

    def look(self) -> None:
        """Pause or resume, after a delivery over the limit, a settled message, or when no message waits any more."""
        waits = self.waits()
        if self.parked and not (self.awaited and waits):
            self.give_back()
        if self.paused:
            if self.closing or self.awaited or self.bytes <= self.bytes_max * LOW_PART or not waits:
                self.paused = False
                self.resume()
        elif self.bytes > self.bytes_max and not (self.awaited or self.closing) and waits:
            self.paused = True
            self.pause()

    def give_back(self) -> None:
        parked, self.parked = self.parked, []
        for message in parked:
            message.reject(requeue=True)

    def ask(self) -> None:
        """The broker is being asked something. ``answered`` must be called when it has answered, or can't any more."""
        self.awaited += 1
        self.look()

    def answered(self) -> None:
        self.awaited -= 1
        self.look()

    def connection_changed(self) -> None:
        """There is no connection, or another one, which is read."""
        self.paused = False
        self.give_back()  # nothing that was parked on the lost connection is ours any more

    def close(self) -> None:
        """Read on: the connection is being closed, and the broker's answer comes after everything else."""
        self.closing = True
        self.look()
