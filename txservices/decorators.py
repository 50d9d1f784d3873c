"""What a decorator of an entrypoint does: it notes the entrypoint on the method, and leaves the method as it is.

    @name               the class ``Name`` is called without arguments
    @name(options)      it is called with them
    def method(self): ...

The container finds there what is noted. A decorator that stands in a wrong place is told at once, for Python's own
error would name lines of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar

from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.exceptions import ConfigurationError
from txservices.safe import brief
from txservices.utils.signatures import needed_by_init

INIT = re.compile(r"^[\w.]+\.__init__\(\) ")  # the beginning of Python's text about its arguments

Function = TypeVar("Function", bound=Callable[..., Any])


def decorate(cls: type[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the decorator of an entrypoint's class gives, when it is called with these.

    That is the method, if the decorator stands above it without brackets, and else the function that takes the method.
    """
    if len(args) == 1 and not kwargs and isinstance(args[0], (FunctionType, staticmethod, classmethod, property)):
        needed = needed_by_init(cls)
        if needed:
            raise ConfigurationError(
                f"the decorator above {called(args[0])} needs {', '.join(needed)}: write it with its arguments in"
                " brackets"
            )
        return register_entrypoint(args[0], cls())  # type: ignore[type-var]  # which refuses what is no function

    def declare(function: Function) -> Function:
        try:
            entrypoint = cls(*args, **kwargs)
        except TypeError as error:
            words = INIT.sub("", str(error))  # the user has written the decorator, and not that class
            raise ConfigurationError(f"the decorator above {called(function)} {words}") from error
        return register_entrypoint(function, entrypoint)

    return declare


def register_entrypoint(function: Function, entrypoint: object) -> Function:
    """Note the entrypoint on the function, where the container finds it."""
    if not isinstance(function, FunctionType):
        raise ConfigurationError(
            f"the decorator above {called(function)} is on a {type(function).__name__}, which is no method: put it"
            " directly above the `def` of a plain method, with self"
        )
    function.__dict__.setdefault(ENTRYPOINTS_ATTRIBUTE, []).append(entrypoint)
    return function


def called(function: Any) -> str:
    """The name of the function that a decorator is above."""
    method = function.fget if isinstance(function, property) else function
    return str(getattr(method, "__qualname__", None) or brief(function))
