"""Ids of messages and calls. Pure: no Twisted here."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable


def forget_ids() -> None:
    """Begin anew with a random prefix: after a fork two processes would go on counting from one."""
    global _prefix, _next_number
    _prefix = str(uuid.uuid4())[:24]
    _next_number = itertools.count().__next__


_prefix: str
_next_number: Callable[[], int]
forget_ids()
os.register_at_fork(after_in_child=forget_ids)


def new_id() -> str:
    """An id in the shape of a UUID, unique among all processes: 74 random bits of this one's, and a count.

    One is made for each message, and ``str(uuid4())`` takes ten times as long.
    """
    return "%s%012x" % (_prefix, _next_number())  # noqa: UP031  # an f-string is slower here
