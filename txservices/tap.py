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

from txservices import announce, loading, logs, probe, process
from txservices.amqp.address import parse_addresses
from txservices.broker.broker import Broker
from txservices.broker.memory import brokers
from txservices.constants import (
    AMQP_URI_CONFIG_KEY,
    DEFAULT_EMBEDDED_BROKER_ADDRESS,
    DEFAULT_WEB_SERVER_ADDRESS,
    EMBEDDED_BROKER_ADDRESS_CONFIG_KEY,
    WEB_SERVER_CONFIG_KEY,
)
from txservices.exceptions import ConfigurationError
from txservices.given import Given, command_to_type
from txservices.runners import ServiceRunner
from txservices.watchdog import watchdog

EMBEDDED = "embedded"  # the broker's name in memory://embedded

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

    ending = process.Ending(reactor)
    ending.leave_at_exit()
    try:
        given = Given(options["config"], options["broker"], tuple(options["defines"]))
        config = given.config()
        logs.join(config)
        tree = build(options["modules"], config, ending, lambda line: log.info("{line}", line=line), given.to_type())
        tree.open_backdoor(options["backdoor-port"])
        return tree
    except ConfigurationError as error:
        process.tell(error)
        raise SystemExit(process.MISTAKE) from None


def build(
    modules: Iterable[str],
    config: Mapping[str, Any],
    ending: process.Ending,
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


def run(service: IService, ending: process.Ending) -> NoReturn:
    """Run the reactor with `service` in it until the end; twistd does this for itself."""
    service.startService()
    ending.reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    ending.reactor.run()
    raise SystemExit(ending.status)


class Running(Service):
    """A service that comes up by itself once it is started, and ends the process when it can't."""

    def __init__(self, ending: process.Ending) -> None:
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
        self, config: Mapping[str, Any], ending: process.Ending, say: Callable[[str], object], options: str
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
            from txservices import manhole  # few want one, and all would wait for twisted.conch

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

    def __init__(self, host: str, port: int, ending: process.Ending, say: Callable[[str], object]) -> None:
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


def embedded_address(config: Mapping[str, Any]) -> tuple[str, int]:
    given = str(config.get(EMBEDDED_BROKER_ADDRESS_CONFIG_KEY) or DEFAULT_EMBEDDED_BROKER_ADDRESS)
    host, _, port = given.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"{EMBEDDED_BROKER_ADDRESS_CONFIG_KEY}: {given!r} is no address: write host:port, 127.0.0.1:5672"
        )
    return host or "127.0.0.1", int(port)


async def listen(host: str, port: int, reactor: Any) -> Broker:
    """The embedded broker, listening, and memory://embedded in this process. May raise CannotListenError."""
    broker = Broker(EMBEDDED, clock=reactor)
    await broker.listen(host, port)
    brokers[EMBEDDED] = broker
    return broker


async def close(broker: Broker | None) -> None:
    if broker is not None:
        brokers.pop(EMBEDDED, None)
        await broker.stop()


async def for_client(config: Mapping[str, Any], reactor: Any) -> dict[str, Any]:
    """The config for a program that runs no service: with nothing configured, it goes where they are."""
    if config.get(AMQP_URI_CONFIG_KEY):
        return dict(config)
    host, port = embedded_address(config)
    uri = await neighbour(host, port, reactor)
    if uri is None:
        raise ConfigurationError(
            f"no broker on {host}:{port}: start one (`txservices run MODULE`, `txservices broker`),"
            f" or name yours with --broker or {AMQP_URI_CONFIG_KEY}"
        )
    return {**config, AMQP_URI_CONFIG_KEY: uri}


async def neighbour(host: str, port: int, reactor: Any) -> str | None:
    """The URI of the broker that answers on `host:port`: another process's embedded one, or RabbitMQ."""
    answer = await probe.ask(host, port, reactor)
    if answer is probe.Answer.OTHER:
        raise ConfigurationError(
            f"port {port} on {host} is taken, and by something that does not speak AMQP: name a broker with"
            f" --broker or {AMQP_URI_CONFIG_KEY}, or set {EMBEDDED_BROKER_ADDRESS_CONFIG_KEY} to a free port"
        )
    return f"amqp://guest:guest@{host}:{port}/" if answer is probe.Answer.BROKER else None
