"""What a process has once, however many services run in it: its connections, its HTTP port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.observers import Observer, observers
from txservices.utils import import_from_path
from txservices.utils.waiting import Waiters

__all__ = ["Observed", "SharedServices", "observer_classes"]

# our observers that a key of the configuration switches on
OURS = {"TRACES": "txservices.monitoring.traces.Traces"}


class SharedServices(MultiService):
    """The Twisted services that all services of a process share. A stop stops all of them, the newest first.

    Attributes:
        containers: of the services, by their names.
        on_stopping: each is called when the services begin to stop, before any of them has.
        on_killing: each is called when the services have been killed, before any of this stops.
        observed_by: the names of the observers that are told of all this until it has stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.containers: dict[str, Any] = {}
        self.on_stopping: list[Callable[[], None]] = []
        self.on_killing: list[Callable[[], None]] = []
        self.observed_by: list[str] = []
        self.closing = False
        self.stopped: Waiters[None] = Waiters()

    def get(self, key: str, make: Callable[[], IService]) -> Any:
        """The Twisted service of that key. The first to ask makes it. It is started with this, or at once."""
        found = self.namedServices.get(key)
        if found is None:
            found = make()
            found.setName(key)
            found.setServiceParent(self)
        return found

    def observe(self, config: Mapping[str, Any]) -> None:
        """Tell the observers of a configuration what happens, until everything has stopped."""
        for name, cls in observer_classes(config).items():
            if name not in self.observed_by:
                observers.hold(name, partial(cls, config))
                self.observed_by.append(name)

    def not_ready(self) -> list[str]:
        """Why the process can't do its work now, a line for each reason. Empty if it can."""
        asked = [*self.containers.values(), *(each for each in self if hasattr(each, "not_ready"))]
        return [line for each in asked for line in each.not_ready()]

    def stopping(self) -> None:
        if not self.closing:
            for call in self.on_stopping:
                call()

    def killing(self) -> None:
        for call in self.on_killing:
            call()

    def stopService(self) -> Deferred[None]:
        """Stop every service. Fires when all have stopped; so does that of a second call.

        To cancel it ends that wait alone: a kill must not interrupt services that close, and stop them once more.
        """
        stopped = self.stopped.wait()
        if not self.closing:
            self.closing = True
            maybeDeferred(super().stopService).addBoth(self.closed)
        return stopped

    def closed(self, result: Any) -> None:
        self.closing = False
        while self.observed_by:
            observers.release(self.observed_by.pop())
        if isinstance(result, Failure):
            self.stopped.fail(result)
        else:
            self.stopped.fire(None)


class Observed(Service):
    """Has our observers that a configuration switches on, in a program that is no service. Goes with its connections.

    ``ConfigurationError`` if what one of them needs is not installed.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.classes = observer_classes({name: config[name] for name in OURS if name in config})

    def startService(self) -> None:
        super().startService()
        for name, cls in self.classes.items():
            observers.hold(name, partial(cls, self.config))

    def stopService(self) -> None:
        super().stopService()
        for name in self.classes:
            observers.release(name)


def observer_classes(config: Mapping[str, Any]) -> dict[str, type[Observer]]:
    """The classes that ``OBSERVERS`` names, and ours. ``ConfigurationError`` if one is no ``Observer``, or isn't."""
    key = configuration.OBSERVERS
    classes: dict[str, type[Observer]] = {}
    ours = [name for switch, name in OURS.items() if configuration.KEYS[switch].of(config)]
    for name in [*key.of(config), *ours]:
        try:
            cls = import_from_path(name)
        except Exception as error:
            if name in ours:
                raise ConfigurationError(str(error)) from error
            raise ConfigurationError(
                f"{key.name}: {name} can't be imported ({type(error).__name__}: {error}): write a class's dotted path"
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, Observer)):
            raise ConfigurationError(f"{key.name}: {name} is no subclass of txservices.observers.Observer")
        classes[name] = cls
    return classes
