"""How many bytes the broker holds for messages and clients, and the mark above which publishers wait. Pure.

    VirtualHost.publish, a body that comes in parts -> held -> over most: alarm() -> held low again: is_low()

A message counts from its publish until nothing refers to it any more: ready, delivered and not settled, or on its way
into the dead letters. A message in several queues counts once, with a small part for each queue. Bytes that a
client has not read are counted, too.
"""

from __future__ import annotations

from collections.abc import Callable

MEMORY_MAX = 1_073_741_824  # bytes; publishers wait while messages take more
LOW_PART = 0.9  # part of that; once the messages take less, publishers are read again
MESSAGE_COST = 600  # bytes that a message takes besides its header and body
ENTRY_COST = 200  # bytes that its place in one queue takes


class Watermark:
    """The count, and whether it is over the mark.

    Args:
        most: bytes.
        alarm: called when the count goes over the mark. Whoever is told sets ``alarmed`` back once ``is_low``.
    """

    __slots__ = ("alarm", "alarmed", "held", "most")

    def __init__(self, most: int = MEMORY_MAX, alarm: Callable[[], None] = lambda: None) -> None:
        self.most = most
        self.alarm = alarm
        self.held = 0
        self.alarmed = False

    def take(self, size: int) -> None:
        """Count that many bytes more."""
        self.held += size
        if self.held > self.most and not self.alarmed:
            self.alarmed = True
            self.alarm()

    def is_low(self) -> bool:
        return self.held <= self.most * LOW_PART
