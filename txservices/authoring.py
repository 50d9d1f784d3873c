"""Mistakes in a service class, told before anything starts: in its name, its ``__init__``, where its entrypoints stand,
and which options they and its dependencies are given.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.exceptions import ConfigurationError
from txservices.extensions import Extension
from txservices.safe import brief
from txservices.utils.signatures import members, needed_by_init

NAME_MAX = 200  # bytes of a service's name: AMQP's names have 255, and the names of queues have more in them

POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)
WRAPPED = (staticmethod, classmethod, property)


def get_service_name(service_cls: type[Any]) -> str:
    """The name by which others call a service class. ``ConfigurationError`` if it has no name, or one that can't be."""
    where = f"{service_cls.__module__}.{service_cls.__name__}"
    name = getattr(service_cls, "name", None)
    if name is None:
        raise ConfigurationError(f"Service class must define a `name` attribute ({where}): others call it by that name")
    if not isinstance(name, str):
        raise ConfigurationError(f"Service name attribute must be a string ({where}), and is {name!r}")
    if not name.strip():
        raise ConfigurationError(f"the name of {where} is empty: others call the service by its name")
    if "*" in name or "#" in name:
        raise ConfigurationError(
            f"the name {name!r} of {where} has * or # in it, which the broker takes for any word: calls of others would"
            " come in as well"
        )
    size = len(name.encode(errors="replace"))
    if size > NAME_MAX:
        raise ConfigurationError(f"the name of {where} has {size} bytes: give it a name of up to {NAME_MAX}")
    return name


def check_class(service_cls: type[Any]) -> None:
    """``ConfigurationError`` for a class whose instances or methods a worker can't use."""
    where = f"{service_cls.__module__}.{service_cls.__name__}"
    needed = needed_by_init(service_cls)
    if needed:
        raise ConfigurationError(
            f"{where} can't be made without arguments, its __init__ needs {', '.join(needed)}: each call has an"
            " instance of its own. Inject what it needs by a DependencyProvider"
        )
    for name, value in members(service_cls).items():
        if isinstance(value, type) and issubclass(value, Extension) and name != value.__name__:
            raise ConfigurationError(f"{where}.{name} is the class {value.__name__}: write {value.__name__}()")
        if isinstance(value, WRAPPED) and has_entrypoints(value):
            kind = type(value).__name__
            raise ConfigurationError(f"{where}.{name} is a {kind}: an entrypoint is a plain method, with self")
        if isinstance(value, FunctionType) and has_entrypoints(value) and not takes_self(value):
            raise ConfigurationError(
                f"{where}.{name} takes no self: an entrypoint is a method, so write `def {name}(self)`"
            )
        if (inspect.isgeneratorfunction(value) or inspect.isasyncgenfunction(value)) and not all(
            getattr(each, "may_yield", True) for each in getattr(value, ENTRYPOINTS_ATTRIBUTE, ())
        ):
            raise ConfigurationError(
                f"{where}.{name} has a `yield` in it, so nothing of it would ever run: put @inlineCallbacks between its"
                f" decorator and its `def`, or write `async def {name}` with `await`"
            )


def check_count(where: str, value: Any, most: int, of: str) -> None:
    """``ConfigurationError`` for an option that is no whole number from 1 to ``most``.

    The error's text names the entrypoint and its option, which is ``where``, and says in ``of`` what that number is.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigurationError(f"{where}: {brief(value)} is no whole number from 1 to {most}, {of}")


@contextmanager
def mistakes_in(where: str) -> Iterator[None]:
    """Tell a wrong option of an extension as a mistake in the service class. ``where`` is ``service.attribute``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from error


def has_entrypoints(value: Any) -> bool:
    function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    return bool(getattr(function, ENTRYPOINTS_ATTRIBUTE, ()))


def takes_self(function: FunctionType) -> bool:
    return any(
        each.kind in POSITIONAL for each in inspect.signature(function, follow_wrapped=False).parameters.values()
    )
