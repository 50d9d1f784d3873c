"""What a call in the reactor gives: a Deferred that can't be mistaken for the value that it will have.

Code that was written for nameko reads the value at once. A plain Deferred is true, has no items, and is an empty object
to a schema, so such code would go on with nonsense. An ``Answer`` raises ``NotAwaited`` where it is read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from twisted.internet.defer import Deferred

from txservices.callids import this_worker
from txservices.exceptions import NotAwaited

__all__ = ["Answer"]


def line_of(reader: FrameType) -> str:
    """The file, the line and the name of the method that reads a value.

    A schema of some library may be the reader. So this is the innermost frame of the package that the worker's service
    is in, if there is one.
    """
    worker = this_worker.get()
    package = "" if worker is None else type(worker.service).__module__.partition(".")[0]
    found: FrameType | None = reader
    while found is not None and str(found.f_globals.get("__name__")).partition(".")[0] != package:
        found = found.f_back
    found = found or reader
    return f"{found.f_code.co_filename}, line {found.f_lineno}, in {found.f_code.co_name}"


def refuse(answer: Answer, *_: Any) -> NoReturn:
    raise NotAwaited(answer.call, line_of(sys._getframe(1)))


class Answer(Deferred[Any]):
    """The Deferred of one call.

    Attributes:
        call: of which method it is, as ``service.method``.
    """

    def __init__(self, call: str, canceller: Callable[[Deferred[Any]], None] | None = None) -> None:
        super().__init__(canceller)
        self.call = call

    def __getattr__(self, name: str) -> Any:  # only for what a Deferred hasn't
        # `result` is what Twisted looks for, the others are what copy, inspect and zope.interface do
        if name == "result" or name.startswith("_"):
            raise AttributeError(name)
        raise NotAwaited(self.call, line_of(sys._getframe(1)), name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Deferred):
            return self is other
        raise NotAwaited(self.call, line_of(sys._getframe(1)))

    __hash__ = Deferred.__hash__
    __repr__ = Deferred.__repr__  # for logs and debuggers: what it is
    __str__ = __format__ = refuse
    __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = refuse
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = refuse
