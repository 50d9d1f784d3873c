"""Policies that a configuration has written under ``RETRY``."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any

from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.exceptions import ConfigurationError
from txservices.kinds import named
from txservices.retry.policy import Retry
from txservices.utils import import_from_path

__all__ = ["error_classes", "policy_for"]


def policy_for(written: Mapping[str, Any] | None, method: str, service_cls: type | None = None) -> Retry | None:
    """The policy that ``RETRY`` of a configuration has for ``service.method``. ``ConfigurationError`` for a mistake.

    A method that the service's class does not have is a mistake; those of other services are not known here.

    It is a mapping of ``Retry``'s arguments. A key with a dot in it is a method's name, with a mapping for that method
    alone, or false for no retry. Exceptions are written as dotted names, those of Python without a dot.
    """
    if not written:
        return None
    of_all = {name: value for name, value in written.items() if "." not in str(name)}
    of_methods = {str(name): value for name, value in written.items() if "." in str(name)}
    for name, value in of_methods.items():
        service, _, own = name.rpartition(".")
        if service_cls is not None and service == method.rpartition(".")[0]:
            check_method(service_cls, service, own)
        if value:
            made(name, value)
    general = made("RETRY", of_all) if of_all else None
    if method in of_methods:
        own = of_methods[method]
        return made(method, {**of_all, **own}) if own is not False and own is not None else None
    return general


def check_method(service_cls: type, service: str, method: str) -> None:
    """``ConfigurationError`` if nothing of that method could be tried again."""
    found = getattr(service_cls, method, None)
    if found is None:
        raise ConfigurationError(f"RETRY: {service}.{method}: the service {service} has no method {method}")
    if not any(hasattr(each, "retry") for each in getattr(found, ENTRYPOINTS_ATTRIBUTE, ())):
        raise ConfigurationError(
            f"RETRY: {service}.{method}: it has none of @rpc, @event_handler and @consume, so it is never tried again"
        )


def made(where: str, written: Mapping[Any, Any]) -> Retry:
    written = named(written)
    for name in ("on", "give_up_on"):
        if name in written:
            written[name] = error_classes(written[name], "RETRY")
    try:
        return Retry(**written)
    except ConfigurationError as error:
        raise ConfigurationError(f"RETRY: {'' if where == 'RETRY' else where + ': '}{error}") from None


def error_classes(written: Any, key: str) -> tuple[type[BaseException], ...]:
    """The classes of exceptions that a key of the configuration names: one name, or several."""
    names = written if isinstance(written, (list, tuple)) else [] if written is None else [written]
    return tuple(error_class(name, key) for name in names)


def error_class(name: Any, key: str) -> type[BaseException]:
    try:
        found = import_from_path(name) if "." in name else getattr(builtins, name)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"{key}: there is no exception {name!r}: {error}") from None
    if not isinstance(found, type) or not issubclass(found, BaseException):
        raise ConfigurationError(f"{key}: {name!r} is no class of exceptions")
    return found
