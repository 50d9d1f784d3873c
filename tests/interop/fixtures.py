"""nameko's process, one for each version in a run, and our services in the test's own process, on one virtual host."""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
from collections.abc import Iterable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests import processes, rabbitmq
from tests.interop import nameko_env
from tests.interop.fleet import services
from tests.services import ServicesCase
from txservices.containers import ServiceContainer
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

START_TIMEOUT = 60  # seconds; two on a free machine
ALL = ("Answers", "Caller", "Teller", "Hops", "Listener", "Reader", "Twin", "Flaky", "Standalone")
OURS = services("txservices", "t", Deferred)
CONFIG = {"ACCEPT": ["json", "pickle"], "parent_calls_tracked": 3}  # of both sides
MORE: dict[str, dict[str, Any]] = {
    nameko_env.NAMEKO_2: {},
    nameko_env.NAMEKO_3: {"rpc_exchange": "another-rpc", "AUTO_DELETE_EVENT_EXCHANGES": True},
    nameko_env.OLD_KOMBU: {},
}
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def argv(version: str, config: dict[str, Any], names: Iterable[str]) -> list[str]:
    told = json.dumps({"config": config, "services": list(names)})
    return [nameko_env.python(version), "-W", "ignore", "-m", "tests.interop.nameko_peer", told]


class Peer:
    """A process of nameko's with all services of the fleet, and the configuration that it has."""

    def __init__(self, version: str) -> None:
        nameko_env.python(version)
        node = rabbitmq.node()
        self.config = {**CONFIG, **MORE[version], "AMQP_URI": node.uri(node.new_vhost())}
        output = os.path.join(node.folder, f"nameko-{version}")
        with open(output, "wb") as file:
            self.process = subprocess.Popen(
                rabbitmq.tied(argv(version, self.config, ALL)),
                env={**os.environ, "PYTHONPATH": processes.ROOT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        atexit.register(self.close)
        reactor.addSystemEventTrigger("before", "shutdown", self.close)  # it would mourn its broker
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT)
        if not readable or os.read(self.process.stdout.fileno(), 100)[:5] != b"ready":  # nothing: it has ended
            status = self.process.poll()
            self.close()
            with open(output, encoding="utf-8") as file:
                raise AssertionError(f"nameko {version} has not started, status {status}:\n{file.read()[-4000:]}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@nameko_env.once
def peer(version: str) -> Peer:
    """That of the run."""
    return Peer(version)


class InteropCase(ServicesCase):
    """A test with a nameko that runs, and with those of our services that it starts."""

    skip = rabbitmq.skip
    version = nameko_env.NAMEKO_2

    def setUp(self) -> None:
        super().setUp()
        self.config.update({**peer(self.version).config, "RPC_TIMEOUT": 20})

    async def start_ours(self, *names: str, **config: Any) -> list[ServiceContainer]:
        return await self.start(*(OURS[name] for name in names), **config)

    async def witness(self) -> Heard:
        """The things that the services have told, as (who, what, data, call id stack)."""
        heard = Heard()

        class Witness:
            name = "witness"

            @rpc
            def tell(self, who: str, what: str, data: Any, stack: list[str]) -> None:
                heard((who, what, data, stack))

        await self.start(Witness)
        return heard


class OwnProcessesCase(InteropCase):
    """A test with processes and a virtual host of its own, which may be ended and spoilt."""

    timeout = 90

    def setUp(self) -> None:
        ServicesCase.setUp(self)
        node = rabbitmq.node()
        self.config.update({**CONFIG, "AMQP_URI": node.uri(node.new_vhost()), "RPC_TIMEOUT": 60})

    async def nameko(self, *names: str) -> processes.Process:
        """A process of nameko's with these services, running."""
        process = processes.start(self, argv(self.version, self.config, names), PYTHONPATH=processes.ROOT)
        await process.line("^ready")
        return process
