"""The fixtures, in a pytest of their own; and the examples of docs/testing.md."""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import TestCase

from tests import processes

FIXTURES = """
import pytest
from txservices.events import EventDispatcher
from txservices.rpc import rpc
from txservices.testing.services import entrypoint_hook
from txservices.testing.utils import get_container
from txservices.web.handlers import http

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
    assert ended[0].stopped

def test_plain(run, container_factory, rabbit_config, web_config, web_config_port, web_session):
    container = container_factory(Service, {**rabbit_config, **web_config})
    run(container.start)
    assert run(run(web_session.get, "/url").text) == "got"
    assert web_config_port == 8000
    with entrypoint_hook(container, "fail") as fail, pytest.raises(ValueError):
        run(fail)

async def test_error(container_factory, rabbit_config):
    container = container_factory(Service, rabbit_config)
    with pytest.raises(ValueError), entrypoint_hook(container, "fail") as fail:
        await fail()

async def test_message(stage, amqp_uri, rabbit_config, get_message_from_queue):
    from txservices.amqp.entities import Exchange, Queue
    from txservices.amqp.connection import Connections
    assert rabbit_config["AMQP_URI"] == amqp_uri
    connections = Connections.from_config(rabbit_config)
    connections.startService()
    await connections.declare(Queue("q"))
    await connections.publish("", "q", b"[1]", {"content_type": "application/json", "content_encoding": "utf-8"})
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

async def test_fails(run):
    assert 1 == 2

"""


class PytestTests(TestCase):
    """A suite that uses the fixtures, and the documentation."""

    timeout = 60

    async def run_pytest(self, text: str, *options: str) -> tuple[int, processes.Process]:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "test_it.py"), "w", encoding="utf-8") as file:
            file.write(text)
        process = processes.python(
            self,
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "txservices.testing.pytest", *options),
            cwd=folder,
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
            PYTHONPATH=processes.ROOT,
        )
        return await process.exit(), process

    async def test_fixtures(self) -> None:
        """Each does what it says; an assertion that fails in the reactor's thread fails its test."""
        status, process = await self.run_pytest(FIXTURES)
        self.assertIn("FAILED test_it.py::test_fails - assert 1 == 2", process.stdout)
        self.assertIn("1 failed, 7 passed", process.stdout, str(process))
        self.assertEqual(status, 1)

    async def test_documentation(self) -> None:
        """Every example of docs/testing.md runs, with trial or with pytest."""
        with open(os.path.join(processes.ROOT, "docs", "testing.md"), encoding="utf-8") as file:
            one_method, running, for_pytest = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
        status, process = await self.run_pytest(for_pytest)
        self.assertEqual(status, 0, str(process))
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        for name, text in (("test_one", one_method), ("test_running", running)):
            with open(os.path.join(folder, f"{name}.py"), "w", encoding="utf-8") as file:
                file.write(text)
        trial = processes.python(
            self, "-m", "twisted.trial", "test_one", "test_running", cwd=folder, PYTHONPATH=f"{folder}:{processes.ROOT}"
        )
        self.assertEqual(await trial.exit(), 0, str(trial))
        self.assertIn("successes=5", trial.stdout)
