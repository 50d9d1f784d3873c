"""The fixtures, in a pytest of their own; and the examples of docs/testing.md, with pytest or trial."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import Mock, patch

from twisted.trial.unittest import TestCase

from tests import processes, rabbitmq
from tests.testing import managed
from txservices.testing import plugin
from txservices.testing.rabbit import Client

FIXTURES = """
import pytest
from txservices.events import EventDispatcher
from txservices.rpc import rpc
from txservices.testing.services import entrypoint_hook
from txservices.testing.utils import get_container
from txservices.web.handlers import http
from txservices.web.websocket import WebSocketHubProvider, rpc as websocket_rpc

ended = []

class Service:
    name = "service"
    dispatch = EventDispatcher()

    @rpc
    def fail(self):
        raise ValueError("no")

    @http("GET", "/url")
    def get(self, request):
        return "got"

async def test_runner(runner_factory, rabbit_config, web_session):
    runner = runner_factory(rabbit_config, Service)
    await runner.start()
    ended.append(get_container(runner, Service))
    assert await (await web_session.get("/url")).text() == "got"

def test_killed_with_its_test():
    assert ended[0].life.state.value == "ended"

def test_plain(txservices_run, container_factory, rabbit_config, web_config, web_config_port, web_session):
    container = container_factory(Service, {**rabbit_config, **web_config})
    txservices_run(container.start)
    assert txservices_run(txservices_run(web_session.get, "/url").text) == "got"
    assert web_config_port == 8000
    with entrypoint_hook(container, "fail") as fail, pytest.raises(ValueError):
        txservices_run(fail)

async def test_error(container_factory, rabbit_config):
    container = container_factory(Service, rabbit_config)
    with pytest.raises(ValueError), entrypoint_hook(container, "fail") as fail:
        await fail()

async def test_message(txservices_stage, amqp_uri, rabbit_config, get_message_from_queue):
    from txservices.amqp.entities import Exchange, Queue
    from txservices.amqp.connections import Connections
    assert rabbit_config["AMQP_URI"] == amqp_uri
    connections = Connections.from_config(rabbit_config)
    connections.startService()
    await connections.publisher.declare(Queue("q"))
    properties = {"content_type": "application/json", "content_encoding": "utf-8"}
    await connections.publisher.publish("", "q", b"[1]", properties)
    assert (await get_message_from_queue("q")).payload == [1]
    await connections.stopService()

def test_mock_container(mock_container, empty_config):
    bound = EventDispatcher().bind(mock_container, "dispatch")
    assert bound.container.config is empty_config

async def test_call_ids(container_factory, rabbit_config, predictable_call_ids):
    container = container_factory(Service, rabbit_config)
    seen = []
    container.on_worker_ended.append(lambda worker, *_: seen.append(worker.call_id))
    with entrypoint_hook(container, "get") as get:
        await get(None)
        await get(None)
    assert seen == ["service.get.0", "service.get.1"]

async def test_queue_without_waiting(txservices_stage, get_message_from_queue):
    from twisted.internet.defer import TimeoutError
    from txservices.standalone.events import event_dispatcher
    connections = await declared(txservices_stage)
    with pytest.raises(TimeoutError):
        await get_message_from_queue("q", block=False)
    await connections.publisher.publish("", "q", b"[1]", {"content_type": "application/json"})
    assert (await get_message_from_queue("q", ack=False, block=False)).payload == [1]
    assert (await get_message_from_queue("q", block=False)).payload == [1]
    await connections.stopService()

async def declared(txservices_stage):
    from txservices.amqp.entities import Queue
    from txservices.amqp.connections import Connections
    connections = Connections.from_config(txservices_stage.config)
    connections.startService()
    await connections.publisher.declare(Queue("q"))
    return connections

class Chat:
    name = "chat"
    hub = WebSocketHubProvider()

    @websocket_rpc
    def join(self, socket_id, room):
        self.hub.subscribe(socket_id, room)
        self.hub.broadcast(room, "joined", {})
        return room

async def test_websocket(container_factory, rabbit_config, websocket):
    await container_factory(Chat, rabbit_config).start()
    socket = await websocket()
    assert await socket.rpc("join", room="r") == "r"
    assert await socket.wait_for_event("joined") == ("joined", {})

def test_websocket_plain(txservices_run, container_factory, rabbit_config, websocket):
    txservices_run(container_factory(Chat, rabbit_config).start)
    assert txservices_run(txservices_run(websocket).rpc, "join", room="r") == "r"

def test_memory(rabbit_config, rabbit_uri, amqp_uri):
    assert rabbit_config["AMQP_URI"] == rabbit_uri == amqp_uri
    assert (rabbit_config["username"], rabbit_config["vhost"]) == ("guest", "/")

async def test_fails(txservices_run):
    assert 1 == 2

"""

MANAGED = """
import pytest
from txservices.amqp.connections import Connections
from txservices.rpc import rpc
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing.rabbit import HTTPError

vhosts = []

class Service:
    name = "service"

    @rpc
    def echo(self, value):
        return value

async def test_vhost(container_factory, rabbit_config, rabbit_manager):
    vhosts.append(rabbit_config["vhost"])
    await container_factory(Service, rabbit_config).start()
    async with ClusterRpcProxy(rabbit_config) as cluster:
        assert await cluster.service.echo(1) == 1
        names = [queue["name"] for queue in await rabbit_manager.get_queues(rabbit_config["vhost"])]
        assert "rpc-service" in names

def test_plain(txservices_run, rabbit_config, rabbit_manager):
    vhosts.append(rabbit_config["vhost"])
    assert txservices_run(rabbit_manager.get_queues, rabbit_config["vhost"]) == []

async def test_over_tls(rabbit_ssl_config, rabbit_ssl_options, rabbit_ssl_uri):
    assert rabbit_ssl_config["AMQP_SSL"] == rabbit_ssl_options
    assert rabbit_ssl_config["AMQP_URI"] == rabbit_ssl_uri
    connections = Connections.from_config(rabbit_ssl_config)
    connections.startService()
    protocol = await connections.consuming.when_connected()
    assert protocol.transport.getPeerCertificate() is not None
    await connections.stopService()

async def test_vhost_of_ones_own(vhost_pipeline, rabbit_manager):
    async with vhost_pipeline.get() as vhost:
        await rabbit_manager.create_queue(vhost, "q")

def test_vhosts(txservices_run, rabbit_manager):
    one, other = vhosts
    assert one != other and one.startswith("nameko_test_") and len(one) == 22
"""

BLOCKING = """
import time

async def test_holds(txservices_run):
    time.sleep(1.6)

async def test_does_not(txservices_run):
    pass
"""

NEEDS_MORE = """
def test_tls(rabbit_ssl_config): pass

def test_manager(rabbit_manager): pass
"""


BESIDE_NAMEKO = {
    "nameko-2.14.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: nameko\nVersion: 2.14.1\n",
    "nameko-2.14.1.dist-info/entry_points.txt": "[pytest11]\npytest_nameko = double_of_nameko\n",
    "double_of_nameko.py": """
import pytest

def pytest_addoption(parser):
    parser.addoption("--amqp-uri", "--rabbit-amqp-uri", dest="RABBIT_AMQP_URI")
    parser.addoption("--blocking-detection", action="store_true")

@pytest.fixture
def rabbit_uri(request):
    return "nameko's, " + request.config.getoption("RABBIT_AMQP_URI")
""",
    "test_it.py": "def test_it(rabbit_uri):\n    raise AssertionError(rabbit_uri)\n",
}
TLS_FILES = {"ca_certs": "ca.pem", "certfile": "client.pem", "keyfile": "client.pem"}


class PytestCase(TestCase):
    """Runs a suite."""

    async def run_pytest(self, text: str, *options: str) -> tuple[int, processes.Process]:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "test_it.py"), "w", encoding="utf-8") as file:
            file.write(text)
        process = processes.pytest(self, "-p", "txservices.testing.plugin", *options, cwd=folder)
        return await process.exit(), process


class PytestTests(PytestCase):
    """A suite that uses the fixtures, and the documentation."""

    async def test_fixtures(self) -> None:
        """Each does what it says; an assertion that fails in the reactor's thread fails its test."""
        status, process = await self.run_pytest(FIXTURES)
        self.assertIn("FAILED test_it.py::test_fails - assert 1 == 2", process.stdout)
        self.assertIn("1 failed, 11 passed", process.stdout, str(process))
        self.assertEqual(status, 1)

    async def test_blocking_detection(self) -> None:
        """A test that holds the reactor fails with what it was at, if that was asked for."""
        for options, expected in ((["--blocking-detection"], "1 failed, 1 passed"), ([], "2 passed")):
            _, process = await self.run_pytest(BLOCKING, *options)
            self.assertIn(expected, process.stdout, str(process))
            self.assertEqual("time.sleep(1.6)" in process.stdout, bool(options))

    async def test_what_is_not_in_memory(self) -> None:
        """Fixtures that need a RabbitMQ say which option names it."""
        _, process = await self.run_pytest(NEEDS_MORE)
        self.assertIn("2 errors", process.stdout, str(process))
        self.assertIn("give --amqp-uri", process.stdout)
        self.assertIn("--rabbit-api-uri http://", process.stdout)

    async def test_examples(self) -> None:
        """Every example of docs/testing.md runs, with trial or with pytest."""
        folder = os.path.join(processes.EXAMPLES, "testing")
        with open(os.path.join(folder, "test_greeting.py"), encoding="utf-8") as file:
            status, process = await self.run_pytest(file.read())
        self.assertEqual(status, 0, str(process))
        trial = processes.python(
            *(self, "-m", "twisted.trial", f"--temp-directory={os.path.abspath(self.mktemp())}"),
            *("test_conversion", "test_shop"),
            cwd=folder,
        )
        self.assertEqual(await trial.exit(), 0, str(trial))
        self.assertIn("successes=6", trial.stdout)


class BesideNamekoTests(TestCase):
    """Both plugins are installed, as on the first day of a migration."""

    async def run_pytest(self, place: str, *options: str) -> processes.Process:
        """Run a suite beside a double of nameko's plugin, which comes first or last on Python's path."""
        folder = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(folder, "nameko-2.14.1.dist-info"))
        for name, text in BESIDE_NAMEKO.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        program = f"import sys; sys.path.{place}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
        # Python imports these two for a second, and nothing here uses them
        without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "hypothesispytest", "anyio")]
        process = processes.python(self, "-c", program, *without, *options, cwd=folder)
        await process.exit()
        return process

    async def test_both_are_installed(self) -> None:
        """A suite keeps nameko's fixtures and options, and the header says how to have ours; then it has ours."""
        for place in ("insert(0, '.')", "append('.')"):
            kept = await self.run_pytest(place, "--amqp-uri", "theirs")
            self.assertIn("AssertionError: nameko's, theirs", kept.stdout, str(kept))
            self.assertIn("for ours: pytest -p no:pytest_nameko\n", kept.stdout)
            ours = await self.run_pytest(place, "-p", "no:pytest_nameko", "--amqp-uri", "memory://ours")
            self.assertIn("AssertionError: memory://ours", ours.stdout, str(ours))
            self.assertNotIn("pytest_nameko", ours.stdout)

    def test_whose_plugin_it_is(self) -> None:
        """nameko's plugin counts where it is loaded or will be, and not where it is blocked or nothing is loaded."""
        for loaded, blocked, disabled, installed, expected in (
            (None, False, "", True, True),
            (None, False, "", False, False),
            (None, True, "", True, False),
            (None, False, "1", True, False),
            ("pytest_nameko", False, "1", True, True),
            ("nameko.testing.pytest", False, "1", True, True),
        ):
            plugins: Any = Mock(
                has_plugin=lambda name, loaded=loaded: name == loaded, is_blocked=lambda name, blocked=blocked: blocked
            )
            with (
                patch.dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD=disabled),
                patch.object(plugin, "entry_points", lambda installed=installed, **_: [1] if installed else []),
            ):
                self.assertEqual(plugin.nameko_is_loaded(plugins), expected, (loaded, blocked, disabled, installed))


class ManagedTests(PytestCase):
    """The fixtures that ask RabbitMQ's management."""

    skip = rabbitmq.skip
    timeout = 120

    async def test_managed(self) -> None:
        """Each test has a virtual host of its own, over TLS too; none is left at the end."""
        node = managed.node()
        status, process = await self.run_pytest(
            MANAGED,
            f"--amqp-uri=pyamqp://guest:guest@localhost:{node.port}/ignored",
            f"--rabbit-api-uri={node.api_uri}",
            f"--amqp-ssl-port={node.ssl_port}",
            *(f"--amqp-ssl-option={key}={node.path(name)}" for key, name in TLS_FILES.items()),
        )
        self.assertEqual(status, 0, str(process))
        self.assertIn("5 passed", process.stdout)
        left = [vhost["name"] for vhost in await Client(node.api_uri).get_all_vhosts()]
        self.assertEqual([name for name in left if name.startswith("nameko_test_")], [])
