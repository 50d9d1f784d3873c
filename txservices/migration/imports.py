"""An import hook: in a process that runs nameko's code, ``nameko`` and its modules are ours.

    install(config)  ->  import nameko.rpc  ->  Finder  ->  txservices.rpc, as ``nameko.rpc``

A module of nameko is the module of this folder that is made for it, or else ours of the same name. It is one and the
same object under both names, so that a test that patches ``nameko.rpc.x`` patches what is used. A nameko that is
installed is not touched, and not used. The same goes for eventlet, for what ``green`` has of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from twisted.logger import Logger

from txservices.exceptions import ConfigurationError
from txservices.migration import settings
from txservices.migration.mistakes import missing

OURS = "txservices"
HERE = "txservices.migration"

# The modules that differ from ours of the same name: they wait where ours give Deferreds.
MODULES = {
    "nameko": f"{HERE}.settings",
    "nameko.amqp": f"{HERE}.amqp",
    "nameko.amqp.publish": f"{HERE}.amqp",
    "nameko.cli": f"{OURS}.command.scripts",
    "nameko.cli.main": f"{OURS}.command.scripts",
    "nameko.cli.run": f"{OURS}.command.scripts",
    "nameko.containers": f"{HERE}.containers",
    "nameko.events": f"{HERE}.events",
    "nameko.extensions": f"{HERE}.extensions",
    "nameko.messaging": f"{HERE}.messaging",
    "nameko.rpc": f"{HERE}.rpc",
    "nameko.runners": f"{HERE}.runners",
    "nameko.standalone.events": f"{OURS}.standalone.blocking",
    "nameko.standalone.rpc": f"{HERE}.standalone",
    "nameko.testing.pytest": f"{HERE}.fixtures",
    "nameko.testing.rabbit": f"{HERE}.testing.rabbit",
    "nameko.testing.services": f"{HERE}.testing.services",
    "nameko.testing.utils": f"{HERE}.testing.utils",
    "nameko.testing.waiting": f"{HERE}.testing.waiting",
    "nameko.testing.websocket": f"{HERE}.testing.websocket",
    "eventlet": f"{HERE}.green",
    "eventlet.convenience": f"{HERE}.green.convenience",
    "eventlet.event": f"{HERE}.green.event",
    "eventlet.greenpool": f"{HERE}.green.pool",
    "eventlet.greenthread": f"{HERE}.green.thread",
    "eventlet.hubs": f"{HERE}.green",
    "eventlet.patcher": f"{HERE}.green",
    "eventlet.queue": f"{HERE}.green.queue",
    "eventlet.semaphore": f"{HERE}.green.semaphore",
    "eventlet.support": f"{HERE}.green",
    "eventlet.timeout": f"{HERE}.green.timeout",
    "eventlet.tpool": f"{HERE}.green.tpool",
}
PACKAGES = ("nameko", "eventlet")
PARENTS = {name.rpartition(".")[0] for name in MODULES}
GREEN = "eventlet.green"  # its modules are the standard library's, made green: here they are those themselves

log = Logger()


def install(config: Mapping[str, Any] | None = None) -> None:
    """Have nameko's and eventlet's names lead here from now on, in this process. May be called again.

    ``config`` becomes ``nameko.config``.
    ``ConfigurationError`` if nameko or eventlet has been imported already: parts of both would be in use. Likewise if
    gevent has patched the process.
    """
    if getattr(sys.modules.get("gevent.monkey"), "saved", None):
        raise ConfigurationError(f"this process is patched already: {missing('gevent')}")
    if not any(isinstance(each, Finder) for each in sys.meta_path):
        for package in PACKAGES:
            if package in sys.modules:
                raise ConfigurationError(
                    f"{package} has been imported before its names could lead to txservices: import it later, or start"
                    " with `txservices run --nameko`, which does this first"
                )
            if find_spec(package) is not None:
                log.info("{package} is installed, and is left alone: its names lead to txservices", package=package)
        sys.meta_path.insert(0, Finder())
    if config is not None:
        settings.config.setup(config)


def uninstall() -> None:
    """Undo ``install``, for tests: names lead where they led before, for those who import them from now on."""
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, Finder)]
    for name in [each for each in sys.modules if each.partition(".")[0] in PACKAGES]:
        del sys.modules[name]


class Finder(MetaPathFinder):
    """Finds our module for a name of nameko's or eventlet's, and no gevent."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if package == "gevent":
            found = PathFinder.find_spec(fullname, path, target)
            return None if found is None else ModuleSpec(fullname, Refused(), origin=found.origin)
        if package not in PACKAGES:
            return None
        if fullname in MODULES:
            return self.spec(fullname, MODULES[fullname])
        if fullname == GREEN or fullname.startswith(GREEN + "."):
            return self.spec(fullname, fullname[len(GREEN) + 1 :] or f"{HERE}.green")
        if package == "nameko" and find_spec(f"{OURS}.{rest}") is not None:
            return self.spec(fullname, f"{OURS}.{rest}")
        raise ModuleNotFoundError(missing(fullname), name=fullname)

    def spec(self, fullname: str, ours: str) -> ModuleSpec:
        return ModuleSpec(fullname, Alias(ours), origin=ours, is_package=True)


class Refused(Loader):
    """Stands for a package that must not be imported. Those who can do without it go on."""

    def exec_module(self, module: ModuleType) -> None:
        raise ModuleNotFoundError(missing(module.__name__), name=module.__name__)


class Alias(Loader):
    """Loads our module under another name."""

    def __init__(self, ours: str) -> None:
        self.ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Facade(spec.name, self.ours)

    def exec_module(self, module: ModuleType) -> None:
        ours = import_module(self.ours)
        # a package stays a facade: else modules of this folder would become attributes of packages of ours
        if not hasattr(ours, "__path__") and module.__name__ not in PARENTS:
            sys.modules[module.__name__] = ours
            return
        vars(module)["__facade_of__"] = ours
        vars(module)["__all__"] = list(getattr(ours, "__all__", ()))


class Facade(ModuleType):
    """A package of nameko's: what it has are the attributes of ours, and its modules those that were imported."""

    def __init__(self, name: str, ours: str) -> None:
        super().__init__(name, f"{ours}, as {name}")

    def __getattr__(self, name: str) -> Any:
        ours = vars(self).get("__facade_of__")
        if ours is None or name == "__path__":
            raise AttributeError(name)
        found = getattr(ours, name)
        if isinstance(found, ModuleType):  # a module of ours, whose place another may have taken
            return import_module(f"{self.__name__}.{name}")
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        ours = vars(self).get("__facade_of__")
        if ours is None or isinstance(value, ModuleType) or name.startswith("__"):
            super().__setattr__(name, value)
        else:
            setattr(ours, name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(vars(self).get("__facade_of__"))})
