"""Modules with the name of a decorator in them: ``txservices.rpc`` has ``rpc``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class DecoratorModule(ModuleType):
    """A module that can be called in place of its decorator.

    ``from txservices import rpc`` can't give anything but the module once that is loaded: Python makes each submodule
    an attribute of its package. So the module does what its decorator does.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorator = vars(self)[self.__name__.rpartition(".")[2]]
        return decorator(*args, **kwargs)


def callable_as_decorator(name: str) -> None:
    """Let the module of that name be called in place of its decorator. To be said at its end."""
    sys.modules[name].__class__ = DecoratorModule
