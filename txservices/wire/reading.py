"""How much a connection reads at once, so that everything else of the process has its turn. The same for both sides.

A reactor reads 64 KiB of a socket before the others have theirs. That may be two hundred short messages, of which each
has a worker run, or a caller go on: a tenth of a second of timers that are late. So whoever takes longer than
``READ_TIME`` for one piece is given smaller ones, down to ``READ_MIN``, and larger ones again once that is quick. It
begins with ``READ_FIRST``: the first long piece may be as short as this, too.
"""

from __future__ import annotations

from typing import Any

READ_TIME = 0.02  # seconds for one piece
READ_MIN = 4 * 1024  # bytes of a piece
READ_FIRST = 16 * 1024
READ_MAX = 64 * 1024


class Reading:
    """What one connection reads at once.

    Attributes:
        size: bytes. ``adapt`` is to be called after each piece.
    """

    __slots__ = ("size", "source")

    def __init__(self, transport: Any) -> None:
        self.source = getattr(transport, "transport", transport)  # the socket, if TLS is around it
        self.size = self.source.bufferSize = READ_FIRST

    def adapt(self, length: int, seconds: float) -> None:
        """Choose the size of the next piece: the last one had so many bytes, and took so many seconds."""
        if seconds > READ_TIME:
            size = max(length // 2, READ_MIN)
        elif length >= self.size < READ_MAX and seconds < READ_TIME / 4:
            size = min(self.size * 2, READ_MAX)
        else:
            return
        self.size = self.source.bufferSize = size
