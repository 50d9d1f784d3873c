"""Finds the service classes that `module` or `module:Class` on a command line means.

A module in the working folder may have the name of a standard module, as `http.py`. It is then loaded from its file
and registered as `http.py`, a name that nobody imports. So `import http` still gives the standard module.
The working folder itself is put on the path, after the standard library and before installed packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from twisted.logger import Logger

from txservices.authoring import get_service_name
from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.exceptions import CommandError, ConfigurationError
from txservices.migration import mistakes

log = Logger()

GREEN = {"gevent", "eventlet"}  # where these have patched the process, nothing of ours runs
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class BrokenModule(CommandError):
    """A module was found, but importing it raised an error, which is the ``__cause__``."""


def find_services(given: str, folder: str) -> list[type[Any]]:
    """The service classes of `module`, or the one class that `module:Class` names.

    Modules are looked for in `folder` and on the path. ``CommandError`` if there is no such module, no such class, or
    no service in the module; ``BrokenModule`` if the module can't be imported.
    """
    module_name, _, class_name = given.partition(":")
    before = mistakes.as_it_is()
    module = load_module(module_name, folder)
    tell_replaced(module_name, mistakes.replaced(before))
    if class_name:
        return [named_class(module, module_name, class_name)]
    services = service_classes(module)
    if not services:
        raise CommandError(
            f"nothing in module {module_name!r} looks like a service: mark a method with @rpc or the like"
        )
    return services


def load_module(name: str, folder: str) -> ModuleType:
    path = os.path.join(folder, f"{name}.py")
    put_on_path(folder)
    try:
        if os.path.isfile(path) and belongs_to_another(name, path):
            return load_file(f"{name}.py", path)
        if "/" in name or name.startswith("."):
            raise ModuleNotFoundError(name=name)  # a path, or a name that Python would take for a relative import
        return importlib.import_module(name)
    except ImportError as error:
        # not for an import in a circle, whose error has the name of a module that there is
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and (name == error.name or name.startswith(f"{error.name}."))
        ):
            raise CommandError(f"no module named {name!r}{hint(name, folder)}") from None
        raise broken(name, error) from error
    except Exception as error:
        raise broken(name, error) from error


def tell_replaced(module_name: str, replaced: Mapping[str, str]) -> None:
    """Tell of parts of the standard library that a module has had replaced while it was imported."""
    if replaced:
        packages = ", ".join(sorted(set(replaced.values())))
        text = (
            f"importing {module_name!r} has replaced {', '.join(replaced)} by those of {packages}: threads and the"
            " reactor need Python's own. Take out what patches the process"
        )
        if not GREEN.isdisjoint(replaced.values()):
            raise CommandError(text)
        log.warn("{text}", text=text)


def put_on_path(folder: str) -> None:
    if folder not in sys.path:
        installed = (n for n, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages")))
        sys.path.insert(next(installed, len(sys.path)), folder)


def belongs_to_another(name: str, path: str) -> bool:
    """Whether `import name` would load another file than `path`, or has already loaded another."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    return name in sys.stdlib_module_names or (loaded is not None and not os.path.samefile(loaded, path))


def load_file(name: str, path: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def hint(name: str, folder: str) -> str:
    """The rest of the message about a module that does not exist: what to type instead, or what to check."""
    meant = name.removesuffix(".py").strip("./").replace("/", ".")
    if meant != name and os.path.exists(os.path.join(folder, name)):
        return f": did you mean {meant!r}?"
    return f" in {folder} or among the installed packages: check the name, and the folder you are in"


def broken(name: str, error: Exception) -> CommandError:
    """The error of a module that can't be imported. A mistake that we have found in it is told with its line alone."""
    told = str(error) if isinstance(error, ConfigurationError) else mistakes.why(error)
    if told is not None:
        if isinstance(error, SyntaxError):
            return CommandError(f"{error.filename}, line {error.lineno}: {told}")
        frames = traceback.extract_tb(error.__traceback__)
        at = next((each for each in reversed(frames) if not each.filename.startswith((PACKAGE, "<"))), None)
        return CommandError(f"{at.filename}, line {at.lineno}: {told}" if at else told)
    return BrokenModule(f"module {name!r} could not be imported: {type(error).__name__}: {error}")


def named_class(module: ModuleType, module_name: str, class_name: str) -> type[Any]:
    found = getattr(module, class_name, None)
    if isinstance(found, type):
        return found
    if found is not None:
        raise CommandError(f"{module_name}:{class_name} is not a class: name a service class")
    there = ", ".join(cls.__name__ for cls in service_classes(module))
    known = f"its service classes are {there}" if there else "it has no service classes"
    raise CommandError(f"no class {class_name!r} in module {module_name!r}: {known}")


def service_classes(module: ModuleType) -> list[type[Any]]:
    """Every class in the module that has an entrypoint, also imported ones.

    A class without a ``name`` that another of them inherits from is left out: it is a base class, not a service.
    """
    found = [cls for cls in vars(module).values() if isinstance(cls, type) and has_entrypoints(cls)]
    found = list(dict.fromkeys(found))
    return [cls for cls in found if hasattr(cls, "name") or not is_base_of_another(cls, found)]


def has_entrypoints(cls: type[Any]) -> bool:
    methods = inspect.getmembers(cls, inspect.isfunction)
    return any(getattr(method, ENTRYPOINTS_ATTRIBUTE, None) for _, method in methods)


def is_base_of_another(cls: type[Any], classes: list[type[Any]]) -> bool:
    return any(other is not cls and issubclass(other, cls) for other in classes)


def of_different_names(classes: Iterable[type[Any]]) -> list[type[Any]]:
    """The classes, each once. ``ConfigurationError`` for two of one name: only one of them would run."""
    by_name: dict[str, type[Any]] = {}
    for cls in classes:
        name = get_service_name(cls)
        other = by_name.setdefault(name, cls)
        if other is not cls:
            one, two = (f"{each.__module__}.{each.__qualname__}" for each in (other, cls))
            raise CommandError(
                f"{one} and {two} are both called {name!r}: give them different names, or name the one that is to run,"
                f" as in {cls.__module__}:{cls.__qualname__}"
            )
    return list(by_name.values())
