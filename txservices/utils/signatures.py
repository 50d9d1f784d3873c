"""Looks at classes and methods: attributes with the inherited ones, and whether arguments fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any


def acceptance_of(method: Callable[..., Any]) -> Callable[..., None]:
    """A function of the same parameters that does nothing: calling it is the check of arguments, and far quicker than
    ``inspect.getcallargs``.
    """
    signature = inspect.signature(method, follow_wrapped=False)
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else None,
        )
        for parameter in signature.parameters.values()
    ]
    bare = str(inspect.Signature(parameters))[1:-1]
    accepts: Callable[..., None] = eval(f"lambda {bare}: None")  # of names that Python has already parsed
    accepts.__qualname__ = getattr(method, "__name__", "method")  # what its TypeError says; a Mock has no name
    return accepts


def members(cls: type) -> dict[str, Any]:
    """A class's attributes with the inherited ones, in the order of definition. Runs no property."""
    found: dict[str, Any] = {}
    for each in reversed(cls.__mro__):
        found.update(vars(each))
    return found


def needed_by_init(cls: type[Any]) -> list[str]:
    """The parameters without a default of a class's ``__init__``."""
    init: Any = inspect.getattr_static(cls, "__init__")
    if not isinstance(init, FunctionType):  # written in C
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    _, *parameters = inspect.signature(init, follow_wrapped=False).parameters.values()
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variable]
