"""From options to running services: what `twistd txservices` and `txservices run` both go through.

    modules, config -> build() -> ServiceTree: [the embedded broker, if none is configured] -> ServiceRunner

With no AMQP_URI and a service that needs a broker, the embedded one listens on 127.0.0.1:5672 and the
services here join it in memory; a second process, which finds that port answering AMQP, meets them there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from txservices.amqp.address import parse_addresses
from txservices.broker.broker import Broker
from txservices.command import announce, exits, loading, logs
from txservices.command.broker import EMBEDDED, close, embedded_address, listen, neighbour
from txservices.command.options import Given, command_to_type
from txservices.constants import (
    AMQP_URI_CONFIG_KEY,
    DEFAULT_WEB_SERVER_ADDRESS,
    WEB_SERVER_CONFIG_KEY,
)
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner
from txservices.watchdog import watchdog

log = Logger()


class Options(usage.Options):
    """Options of `twistd txservices`."""

    synopsis = "[options] --module MODULE[:CLASS] [--module …]"
    longdesc = "Runs service classes: RPC, events, HTTP and timers."
    optParameters = [
        ["config", "c", None, "A YAML file; ${NAME:default} in it comes from the environment."],
        ["broker", "b", None, "amqp://user:password@host:port/vhost; goes before the file's."],
        ["backdoor-port", None, None, "[host:]port on this machine for a Python prompt inside the process, by telnet."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["modules"] = []
        self["defines"] = []

    def opt_module(self, given: str) -> None:
        """A module with services, or module:Class for one of them. Can be given again."""
        self["modules"].append(given)

    opt_m = opt_module

    def opt_define(self, given: str) -> None:
        """KEY=VALUE for the config, the value in YAML; goes before the file's. Can be given again."""
        self["defines"].append(given)

    opt_d = opt_define

    def postOptions(self) -> None:
        if not self["modules"]:
            raise usage.UsageError("no --module: name the module that your service classes are in")


def makeService(options: Options) -> IService:
    """What twistd calls, before it becomes a daemon: a mistake to be seen by now is told, and ends it."""
    from twisted.internet import reactor

    ending = exits.Ending(reactor)
    ending.leave_at_exit()
    try:
        given = Given(options["config"], options["broker"], tuple(options["defines"]))
        config = given.config()
        logs.join(config)
        tree = build(options["modules"], config, ending, lambda line: log.info("{line}", line=line), given.to_type())
        tree.open_backdoor(options["backdoor-port"])
        return tree
    except ConfigurationError as error:
        exits.tell(error)
        raise SystemExit(exits.MISTAKE) from None


def build(
    modules: Iterable[str],
    config: Mapping[str, Any],
    ending: exits.Ending,
    say: Callable[[str], object],
    options: str = "",
) -> ServiceTree:
    """The services of `modules` with what they need, not started yet.

    ConfigurationError for what is wrong with a module or a class; what goes wrong later goes to `ending`.
    `say` gets the lines for the user, `options` is what a `txservices call` needs to come to the same broker.
    """
    tree = ServiceTree(config, ending, say, options)
    for given in modules:
        for service_class in loading.find_services(given, os.getcwd()):
            tree.runner.add_service(service_class)
    return tree


def run(service: IService, ending: exits.Ending) -> NoReturn:
    """Run the reactor with `service` in it until the end; twistd does this for itself."""
    service.startService()
    ending.reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    ending.reactor.run()
    raise SystemExit(ending.status)


class Running(Service):
    """A service that comes up by itself once it is started, and ends the process when it can't."""

    def __init__(self, ending: exits.Ending) -> None:
        self.ending = ending
        self.life: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        # with the reactor running, for only then can what goes wrong stop it
        self.ending.reactor.callWhenRunning(self.begin)

    def begin(self) -> None:
        self.ending.watch_signals()
        self.life = Deferred.fromCoroutine(self.live())

    async def live(self) -> None:
        try:
            await self.come_up()
        except CancelledError:
            pass  # stopped before it was up
        except Exception as error:
            self.ending.fail(error)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self.go_down())

    async def come_up(self) -> None:
        """What starting does; an error ends the process, also long after."""

    async def go_down(self) -> None:
        """What stopping does, in order."""


class ServiceTree(Running):
    """Everything that one start runs: the broker if none is configured, and on it the services."""

    def __init__(
        self, config: Mapping[str, Any], ending: exits.Ending, say: Callable[[str], object], options: str
    ) -> None:
        super().__init__(ending)
        self.config = dict(config)
        self.runner = ServiceRunner(self.config, clock=ending.reactor)
        self.runner.shared.get("watchdog", lambda: watchdog(config, ending.reactor))
        self.broker: Broker | None = None
        self.manhole: Any = None
        self.say = say
        self.options = options
        ending.hurry = self.runner.kill

    def open_backdoor(self, address: str | None) -> None:
        """Have a manhole at `[host:]port`, if there is an address, from the start on."""
        if address:
            from txservices.command import manhole  # few want one, and all would wait for twisted.conch

            containers = {container.service_name: container for container in self.runner.containers}
            inside = {"runner": self.runner, "containers": containers, "config": self.config}
            self.manhole = manhole.Manhole(manhole.port_of(address), inside, self.ending.reactor)

    async def come_up(self) -> None:
        self.say(f"starting services: {', '.join(self.runner.service_names)}")
        ended = self.runner.wait()  # asked first: who dies in the start is told of here, and once
        try:
            if self.manhole is not None:
                self.say(f"backdoor: telnet {self.manhole.listen()}")
            await self.find_broker()
            await self.runner.start()
        except Exception:
            ended.addErrback(lambda failure: None)
            raise
        self.say_what_runs()
        await ended

    def say_what_runs(self) -> None:
        containers = self.runner.containers
        http = ""
        if announce.uses(containers, announce.HTTP):
            http = http_address(self.config)
            self.say(f"http: {http}")
        self.say(f"running: {', '.join(self.runner.service_names)}")
        reach = announce.Reach(command_to_type(), self.options, http)
        lines = announce.lines_to_type(containers, reach)
        for line in ["to try:", *(f"  {line}" for line in lines)] if lines else []:
            self.say(line)

    async def find_broker(self) -> None:
        """See that the services have a broker, if they need one, and say which."""
        if any(needs_amqp(container) for container in self.runner.containers):
            self.say(f"broker: {await self.broker_to_use()}")

    async def broker_to_use(self) -> str:
        """What the user configured, or the embedded one, or who is in its place; how to name it."""
        if uris := self.config.get(AMQP_URI_CONFIG_KEY):
            return ", ".join(str(address) for address in parse_addresses(uris))
        host, port = embedded_address(self.config)
        try:
            self.broker = await listen(host, port, self.ending.reactor)
        except CannotListenError:
            uri = await neighbour(host, port, self.ending.reactor)
            if uri is None:
                raise  # the port is free and may not be had
            self.config[AMQP_URI_CONFIG_KEY] = uri
            return f"the one that answers on {host}:{port}"
        self.config[AMQP_URI_CONFIG_KEY] = f"memory://{EMBEDDED}"
        return f"embedded, on {host}:{port} (it keeps nothing when this process ends)"

    async def go_down(self) -> None:
        await self.runner.stop()
        if self.life is not None:
            self.life.cancel()
        await close(self.broker)
        if self.manhole is not None:
            await self.manhole.stop()


class BrokerAlone(Running):
    """The embedded broker and nothing else."""

    def __init__(self, host: str, port: int, ending: exits.Ending, say: Callable[[str], object]) -> None:
        super().__init__(ending)
        self.address = host, port
        self.broker: Broker | None = None
        self.say = say

    async def come_up(self) -> None:
        host, port = self.address
        self.broker = await listen(host, port, self.ending.reactor)
        self.say(f"broker: amqp://guest:guest@{host}:{port}/ (it keeps nothing when this process ends)")

    async def go_down(self) -> None:
        await close(self.broker)


def needs_amqp(container: Any) -> bool:
    """Whether the service calls, is called, tells or hears by AMQP: its extensions say so in `needs_amqp`."""
    return any(getattr(extension, "needs_amqp", False) for extension in container.extensions)


def http_address(config: Mapping[str, Any]) -> str:
    address = str(config.get(WEB_SERVER_CONFIG_KEY) or DEFAULT_WEB_SERVER_ADDRESS)
    return f"http://{address if ':' in address else f'127.0.0.1:{address}'}"
