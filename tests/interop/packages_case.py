"""One process for a run, with services in nameko's style that use its extension packages: those of ``packages/``.

    txservices run --nameko --config packages/config.yaml uses_sqlalchemy …

A test calls them. They keep what a package sends elsewhere, and give it when they are asked.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import subprocess
import time

from twisted.internet import reactor

from tests import processes, rabbitmq
from tests.interop import nameko_env, packages_env
from tests.services import ServicesCase
from txservices.standalone.rpc import ClusterProxy

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages")
CONFIG = os.path.join(FOLDER, "config.yaml")
MODULES = sorted(name.removesuffix(".py") for name in os.listdir(FOLDER) if name.startswith("uses_"))
START_TIMEOUT = 100  # seconds; three on a free machine
RUNNING = re.compile(r"^running: ", re.MULTILINE)


class Running:
    """The process, and the environment that fills in its configuration."""

    def __init__(self) -> None:
        python = packages_env.python()
        node = rabbitmq.node()
        folder = os.path.join(node.folder, "packages")
        os.mkdir(folder)
        self.metrics = socket.socket(type=socket.SOCK_DGRAM)
        self.metrics.bind(("127.0.0.1", 0))
        self.metrics.settimeout(START_TIMEOUT)
        self.environ = {
            "AMQP_URI": node.uri(node.new_vhost()),
            "WEB_SERVER_ADDRESS": f"127.0.0.1:{rabbitmq.free_port()}",
            "FOLDER": folder,
            "REDIS_URI": f"unix://{folder}/redis",
            "STATSD_PORT": str(self.metrics.getsockname()[1]),
            **{f"PORT_{what}": str(rabbitmq.free_port()) for what in ("BAYEUX", "GRPC", "SALESFORCE")},
        }
        self.redis = self.start_redis(folder)
        environ = {**os.environ, **self.environ, "PYTHONPATH": os.pathsep.join((processes.ROOT, FOLDER))}
        argv = [python, "-W", "ignore", "-m", "txservices", "run", "--nameko", "--config", CONFIG, *MODULES]
        self.output = os.path.join(folder, "output")
        self.process = rabbitmq.spawn(argv, environ, self.output)
        atexit.register(self.close)
        reactor.addSystemEventTrigger("before", "shutdown", self.close)  # it would mourn its broker
        self.wait(time.monotonic() + START_TIMEOUT)

    def start_redis(self, folder: str) -> subprocess.Popen[bytes] | None:
        """A Redis that keeps nothing on the disk, at a socket in the folder; None if there is none on this machine."""
        server = shutil.which("redis-server")
        if server is None:
            return None
        argv = [server, "--port", "0", "--unixsocket", f"{folder}/redis", "--save", "", "--dir", folder]
        return rabbitmq.spawn(argv, dict(os.environ), f"{folder}/redis-output")

    def wait(self, deadline: float) -> None:
        """Until it runs."""
        while not RUNNING.search(printed := self.printed()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"it has not started, status {self.process.poll()}:\n{printed[-4000:]}")
            time.sleep(rabbitmq.LOOK_AGAIN)

    def printed(self) -> str:
        with open(self.output, encoding="utf-8") as file:
            return file.read()

    def close(self) -> None:
        for process in (self.process, self.redis):
            if process is not None:
                process.kill()
                process.wait()
        self.metrics.close()


@nameko_env.once
def running() -> Running:
    """That of the run."""
    return Running()


class PackagesCase(ServicesCase):
    """A test that calls the services of the process: ``self.services.uses_sqlalchemy.method()``."""

    skip = rabbitmq.skip
    timeout = 900  # seconds: the first of them has the environment made, a minute on a good line
    services: ClusterProxy

    async def setUp(self) -> None:
        super().setUp()
        self.running = running()
        self.config.update({"AMQP_URI": self.running.environ["AMQP_URI"], "RPC_TIMEOUT": 60})
        self.services = await self.cluster()
