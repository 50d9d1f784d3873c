"""From options to running services: the way of both `twistd txservices` and `txservices run`.

    config -> begin() -> the log -> ServiceTree: [the embedded broker, if no other is configured] -> ServiceRunner

``command.broker`` says which broker is used if AMQP_URI is not configured.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, NoReturn

from twisted.application.service import IService, Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from txservices import configuration
from txservices.broker.server import Broker
from txservices.broker.users import GUEST
from txservices.command import announce, exits, loading, logs
from txservices.command.broker import EMBEDDED, close, embedded_address, listen, neighbour, uri_of
from txservices.command.options import Given, command_to_type
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner
from txservices.utils import default_reactor, sanitize_url
from txservices.utils.address import ENDPOINTS, LOOPBACK, parse_addresses
from txservices.watchdog import watchdog

METRICS = "txservices.monitoring.metrics.Metrics"

log = Logger()


class Options(usage.Options):
    """Options of `twistd txservices`."""

    synopsis = "[options] --module MODULE[:CLASS] [--module …]"
    longdesc = "Runs service classes: RPC, events, HTTP and timers."
    optParameters = [
        ["config", "c", None, "A YAML file. ${NAME:default} in it comes from the environment."],
        ["broker", "b", None, "amqp://user:password@host:port/vhost. It overrides the file."],
        ["ops", None, None, "[host:]port: serve /healthz, /readyz and /metrics there; see OPS_ADDRESS."],
        ["backdoor-port", None, None, "[host:]port: open a Python prompt inside the process, for telnet from here."],
    ]
    optFlags = [["nameko", None, "The services are nameko's, unchanged; see NAMEKO."]]

    def __init__(self) -> None:
        super().__init__()
        self["modules"] = []
        self["defines"] = []

    def opt_module(self, given: str) -> None:
        """A module with services, or module:Class for one of them. Can be given several times."""
        self["modules"].append(given)

    opt_m = opt_module

    def opt_define(self, given: str) -> None:
        """KEY=VALUE, with the value in YAML. It overrides the file. Can be given several times."""
        self["defines"].append(given)

    opt_d = opt_define

    def postOptions(self) -> None:
        if not self["modules"]:
            raise usage.UsageError("no --module: name the module that your service classes are in")


def makeService(options: Options) -> IService:
    """Make the service that twistd runs. A mistake that is found here is told, and twistd ends."""
    # twistd calls this before it becomes a daemon, so the user still sees what is told
    ending = exits.Ending(default_reactor())
    ending.leave_at_exit()
    ending.log_is_apart = logs.are_apart(options.parent)
    try:
        given = Given(
            options["config"], options["broker"], tuple(options["defines"]), options["ops"], bool(options["nameko"])
        )
        config, runner_cls = begin(given.config())
        logs.join(config)
        tree = ServiceTree(config, ending, lambda line: log.info("{line}", line=line), given.to_type(), runner_cls)
        tree.add(options["modules"])
        tree.open_backdoor(options["backdoor-port"])
        logs.leave_stdout(config)
        return tree
    except ConfigurationError as error:
        exits.tell(error)
        raise SystemExit(exits.MISTAKE) from None


def begin(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], type[ServiceRunner]]:
    """The first steps, before a module is imported and before the log begins: LOGGING may name classes of modules.

    Gives the configuration, with nameko's defaults if the services are nameko's, and the class of the runner.
    """
    loading.put_on_path(os.getcwd())
    if not configuration.NAMEKO.of(config):
        return config, ServiceRunner
    from txservices.migration import beginning  # only here: most processes need nothing of it

    return beginning.begin(config)


def run(service: IService, ending: exits.Ending) -> NoReturn:
    """Run the reactor with `service` in it, until the end. Under twistd, twistd itself does this."""
    service.startService()
    ending.reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    ending.reactor.run()
    raise SystemExit(ending.status)


class Running(Service):
    """A service that comes up once the reactor runs, and ends the process if an error stops it."""

    def __init__(self, ending: exits.Ending) -> None:
        self.ending = ending
        self.life: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        # only a reactor that runs can be stopped, as after an error in the start
        self.ending.reactor.callWhenRunning(self.begin)

    def begin(self) -> None:
        self.ending.watch_signals()
        self.life = Deferred.fromCoroutine(self.live())

    async def live(self) -> None:
        try:
            await self.come_up()
        except CancelledError:
            pass  # somebody stopped it while it started
        except Exception as error:
            self.ending.fail(error)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self.end())

    async def end(self) -> None:
        in_order = False
        try:
            in_order = await self.go_down()
        finally:
            self.ending.services_ended(in_order)

    async def come_up(self) -> None:
        """Start, and go on until the end. An error ends the process, at the start and later."""

    async def go_down(self) -> bool:
        """Stop everything. Tells whether all of it ended in order, and nothing had to be given up."""
        return True


class ServiceTree(Running):
    """Everything that one process runs: the services, and the embedded broker if they need one."""

    def __init__(
        self,
        config: Mapping[str, Any],
        ending: exits.Ending,
        say: Callable[[str], object],
        options: str,
        runner_cls: type[ServiceRunner] = ServiceRunner,
    ) -> None:
        super().__init__(ending)
        self.config = with_metrics(config)
        self.runner = runner_cls(self.config, clock=ending.reactor)
        self.runner.shared.get("watchdog", lambda: watchdog(config, ending.reactor))
        self.broker: Broker | None = None
        self.manhole: Any = None
        self.with_page = False
        self.page: Any = None
        self.operations: Any = None
        self.say = say
        self.options = options
        ending.hurry = self.runner.kill

    def add(self, modules: Iterable[str]) -> None:
        """Run the services of these modules, too. ``ConfigurationError`` if one, or a class in it, is wrong."""
        found = [cls for given in modules for cls in loading.find_services(given, os.getcwd())]
        for service_class in loading.of_different_names(found):
            self.runner.add_service(service_class)

    def open_backdoor(self, address: str | None) -> None:
        """Make a manhole at `[host:]port`, if there is an address. It listens from the start on."""
        if address:
            from txservices.command import manhole  # only here, since twisted.conch takes long to import

            containers = {container.service_name: container for container in self.runner.containers}
            inside = {"runner": self.runner, "containers": containers, "config": self.config}
            self.manhole = manhole.Manhole(manhole.port_of(address), inside, self.ending.reactor)

    async def open_page(self) -> None:
        """Open the page of this broker's cluster, at its usual port or any free one."""
        from txservices.page.cluster import ClusterPage  # only here, since it loads what serves HTTP

        self.page = ClusterPage(self.config, self.ending.reactor)
        await self.page.start(LOOPBACK, None)

    def open_operations(self) -> None:
        """Listen at the operations address, if there is one."""
        address = configuration.OPS_ADDRESS.of(self.config)
        if address is not None:
            from txservices.web.operations import operations  # only here: it loads klein

            self.operations = operations(address, self.not_ready, self.ending.reactor)
            self.operations.listen()

    def not_ready(self) -> list[str]:
        """Why the process can't do its work now, a line for each reason. Empty if it can."""
        if self.ending.asked_for or self.ending.under_way:
            return ["the process is stopping"]
        return self.runner.shared.not_ready()

    async def come_up(self) -> None:
        self.say(f"starting services: {', '.join(self.runner.service_names)}")
        ended = self.runner.wait()  # before the start, so that a service that dies in it is noticed, once
        try:
            self.open_operations()
            if self.manhole is not None:
                self.say(f"backdoor: telnet {self.manhole.listen()}")
            await self.find_broker()
            await self.runner.start()
            if self.with_page:
                await self.open_page()
        except CancelledError:  # a stop ended the start, or a service that died in it: the wait tells which
            await ended
            raise
        except Exception:
            ended.addErrback(lambda failure: None)
            raise
        self.say_what_runs()
        spare_what_stays()
        await ended

    def say_what_runs(self) -> None:
        containers = self.runner.containers
        http = ""
        if announce.uses(containers, announce.HTTP):
            http = http_address(self.config)
            self.say(f"http: {http}")
        if self.page is not None:
            self.say(f"page: {self.page.address}")
        self.say(f"running: {', '.join(self.runner.service_names)}")
        reach = announce.Reach(command_to_type(), self.options, http if "://" in http else "")
        lines = announce.lines_to_type(containers, reach)
        for line in ["to try:", *(f"  {line}" for line in lines)] if lines else []:
            self.say(line)

    async def find_broker(self) -> None:
        """Make sure that the services and the page have a broker, if they need one, and say which."""
        if self.with_page or any(needs_amqp(container) for container in self.runner.containers):
            self.say(f"broker: {await self.broker_to_use()}")

    async def broker_to_use(self) -> str:
        """See to a broker: the configured one, the embedded one, or one in its place. Gives its description."""
        if uris := configuration.AMQP_URI.of(self.config):
            return ", ".join(str(address) for address in parse_addresses(uris))
        host, port = embedded_address(self.config)
        users = configuration.EMBEDDED_BROKER_USERS.of(self.config)
        try:
            self.broker = await listen(host, port, self.ending.reactor, users)
        except CannotListenError:
            uri = await neighbour(host, port, self.ending.reactor, users)
            if uri is None:
                raise  # nothing listens on the port, yet it can't be opened: no permission, or not our address
            self.config[configuration.AMQP_URI.name] = uri
            return f"the one on {host}:{port}, which another process has"
        self.config[configuration.AMQP_URI.name] = f"memory://{EMBEDDED}"
        return f"embedded, on {host}:{port} (it keeps nothing when this process ends)"

    async def go_down(self) -> bool:
        if self.page is not None:
            await self.page.stop()
        await self.runner.stop()
        if self.life is not None:
            self.life.cancel()
        await close(self.broker)
        if self.manhole is not None:
            await self.manhole.close()
        if self.operations is not None:  # last: whoever waits for the end of this process asks there
            await self.operations.stopService()
        return not any(container.gave_up for container in self.runner.containers)


class BrokerAlone(Running):
    """The embedded broker and nothing else."""

    def __init__(
        self, host: str, port: int, users: Mapping[str, str], ending: exits.Ending, say: Callable[[str], object]
    ) -> None:
        super().__init__(ending)
        self.address = host, port
        self.users = users
        self.broker: Broker | None = None
        self.say = say

    async def come_up(self) -> None:
        host, port = self.address
        self.broker = await listen(host, port, self.ending.reactor, self.users)
        uri = uri_of(host, port, self.users)
        shown = uri if GUEST in self.users else sanitize_url(uri)
        self.say(f"broker: {shown} (it keeps nothing when this process ends)")

    async def go_down(self) -> bool:
        await close(self.broker)
        return True


def spare_what_stays() -> None:
    """Have the garbage collector no longer walk what is there when services have started: mostly modules."""
    # Each of its full passes held even the smallest service for 30 ms, and one with large tables for a second.
    gc.collect()
    gc.freeze()


def with_metrics(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config, with metrics among its observers if they are served and their library is installed."""
    key = configuration.OBSERVERS
    served = configuration.OPS_ADDRESS.of(config) is not None or configuration.WEB_HEALTH.of(config)
    if served and METRICS not in key.of(config) and find_spec("prometheus_client") is not None:
        return {**config, key.name: [*key.of(config), METRICS]}
    return dict(config)


def needs_amqp(container: Any) -> bool:
    """Whether the service uses AMQP: one of its extensions has a true ``needs_amqp``."""
    return any(getattr(extension, "needs_amqp", False) for extension in container.extensions)


def http_address(config: Mapping[str, Any]) -> str:
    """The first address of HTTP as a URL; its text if it is an endpoint of another kind."""
    value = configuration.WEB_SERVER_ADDRESS.of(config)
    address = str(value[0] if isinstance(value, list) else value)
    kind, _, rest = address.partition(":")
    if kind in ("ssl", "tcp"):
        return f"{'https' if kind == 'ssl' else 'http'}://127.0.0.1:{rest.partition(':')[0]}"
    if kind in ENDPOINTS:
        return address
    return f"http://{address if ':' in address else f'127.0.0.1:{address}'}"
