"""What a call in the reactor gives: a Deferred that can't be mistaken for the value that it will have.

Code that was written for nameko reads the value at once. A plain Deferred is true, has no items, and is an empty object
to a schema, so such code would go on with nonsense. An ``Answer`` raises ``NotAwaited`` where it is read.

If a call fails and nobody has looked at its error when its Deferred is gone, the log tells it: ``tell_if_unawaited``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, NoReturn

from twisted.internet.defer import DebugInfo, Deferred
from twisted.logger import Logger, LogLevel

from txservices.callids import this_worker
from txservices.exceptions import NotAwaited

__all__ = ["Answer"]

log = Logger()

OURS = ("call", "deferred")  # attributes that a copy has not yet when it is looked at


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


class Called:
    """``Deferred.called``: an ``Answer`` has none of its own before it shares the state of the other Deferred."""

    def __get__(self, answer: Answer | None, cls: type[Any]) -> bool:
        return answer is not None and answer.deferred.called


class Answer(Deferred[Any]):
    """The Deferred of one call.

    Python reads attributes of a class with ``__getattr__`` slowly, and Twisted reads a Deferred's some twenty times. So
    what is awaited is a plain Deferred. If this one is used as a Deferred, as by ``addCallback``, both have one
    ``__dict__`` from then on.

    Attributes:
        call: of which method it is, as ``service.method``.
        deferred: the plain one, which fires with the value.
    """

    __slots__ = OURS

    called: Any = Called()

    def __init__(self, call: str, deferred: Deferred[Any]) -> None:
        self.call = call
        self.deferred = deferred

    def __await__(self) -> Generator[Any, None, Any]:
        return self.deferred.__await__()

    def __getattr__(self, name: str) -> Any:  # only for what isn't there
        if name not in OURS and not name.startswith("__"):
            state = vars(self.deferred)
            if name in state:  # Twisted looks for it; its name differs from version to version
                state.update(vars(self))
                self.__dict__ = state
                return state[name]
        # these are what Twisted, copy, inspect and zope.interface look for
        if name == "result" or name in OURS or name.startswith("_"):
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


class Unawaited(DebugInfo):
    """Tells of a call that failed, if nobody has looked at its error when its Deferred is gone.

    Twisted keeps such an object with each Deferred that fails. Its own says neither which call it was nor who made it.
    """

    def __init__(self, call: str, run: Callable[..., Any]) -> None:
        self.call = call
        self.run = run

    def __del__(self) -> None:
        if self.failResult is not None:
            error, level = self.failResult.value, LogLevel.error
            text = "the call of {call} failed, and nobody awaited it: {kind}: {error}"
            self.run(log.failure, text, self.failResult, level, call=self.call, kind=type(error).__name__, error=error)


def tell_if_unawaited(answer: Deferred[Any], call: str, run: Callable[..., Any]) -> None:
    """Have the log name the call if it fails and nobody looks at its error; ``run`` runs in the caller's context."""
    if answer._debugInfo is None:  # else somebody debugs Deferreds
        answer._debugInfo = Unawaited(call, run)
