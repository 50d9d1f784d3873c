"""nameko's fixtures for pytest: line 72."""

from __future__ import annotations

import os

from tests import processes
from tests.conformance.cases import Case

SUITE = """
from txservices.amqp.entities import Queue
from txservices.messaging import Publisher
from txservices.rpc import RpcProxy, rpc
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.testing.services import entrypoint_hook
from txservices.testing.utils import get_container
from txservices.web.handlers import http

seen = []

class Service:
    name = "service"
    itself = RpcProxy("service")
    publish = Publisher()

    @rpc
    def echo(self, value):
        return value

    @rpc
    def tell(self, value):
        return self.publish(value, routing_key="told", declare=[Queue("told")])

    @http("GET", "/url")
    def url(self, request):
        return "answer"

async def test_container(container_factory, rabbit_config, amqp_uri, get_message_from_queue, predictable_call_ids):
    assert rabbit_config["AMQP_URI"] == amqp_uri
    seen.append(amqp_uri)
    container = container_factory(Service, rabbit_config)
    await container.start()
    with entrypoint_hook(container, "tell") as tell:
        await tell(["v"])
    message = await get_message_from_queue("told")
    assert message.payload == ["v"]
    assert message.headers["nameko.call_id_stack"] == ["service.tell.0"]
    seen.append(container)

async def test_runner(runner_factory, rabbit_config, amqp_uri, web_session):
    assert seen[1].life.state.value == "ended"  # the one before was killed with its test
    seen.append(amqp_uri)
    runner = runner_factory(rabbit_config, Service)
    await runner.start()
    async with ClusterRpcProxy(rabbit_config) as cluster:
        assert await cluster.service.echo(1) == 1
    assert await (await web_session.get("/url")).text() == "answer"
    assert get_container(runner, Service) is not None

def test_in_threads(txservices_run, container_factory, rabbit_config, web_config, web_config_port, web_session):
    container = container_factory(Service, {**rabbit_config, **web_config})
    txservices_run(container.start)
    assert txservices_run(txservices_run(web_session.get, "/url").text) == "answer"
    assert web_config["WEB_SERVER_ADDRESS"].endswith(str(web_config_port))

def test_doubles(mock_container, empty_config):
    proxy = RpcProxy("service").bind(mock_container, "itself")
    assert proxy.container.config is empty_config == {}

def test_brokers():
    print("brokers", len({seen[0], seen[2]}))
"""


class Plugin(Case):
    """Line 72."""

    def suite(self, *options: str) -> processes.Process:
        folder = os.path.abspath(self.mktemp())
        os.makedirs(folder)
        with open(os.path.join(folder, "test_suite.py"), "w", encoding="utf-8") as file:
            file.write(SUITE)
        return processes.pytest(self, "-s", "-p", "txservices.testing.plugin", *options, cwd=folder)

    async def test_line_72_fixtures(self) -> None:
        """nameko's fixtures in a suite of one's own, ``async`` tests or not; each test has a broker of its own.

        They are over brokers, connections and HTTP in memory; with ``--rabbit-api-uri``, as nameko's, over virtual
        hosts on RabbitMQ: see ``tests/testing/test_pytest.py``.
        """
        printed = await processes.succeed(self.suite())
        self.assertIn("5 passed", printed)
        self.assertIn("brokers 2", printed)

    async def test_line_72_options(self) -> None:
        """``--amqp-uri``, or ``--rabbit-amqp-uri``, names another broker for them."""
        uri = await self.stage.listen()
        printed = await processes.succeed(self.suite(f"--rabbit-amqp-uri={uri}"))
        self.assertIn("brokers 1", printed)
