"""nameko's fixtures for pytest suites, over a ``Stage``. The reactor runs in a thread of its own.

    async def test_x(container_factory, rabbit_config):     # this test runs in the reactor's thread
        container = container_factory(ServiceX, rabbit_config)
        await container.start()

    def test_y(container_factory, rabbit_config, txservices_run):     # this one runs in pytest's thread and waits
        container = container_factory(ServiceX, rabbit_config)
        txservices_run(container.start)

``txservices.testing.plugin`` has pytest load this module, in every suite where txservices is installed. So the fixtures
import what they need, and the module imports almost nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, patch
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from txservices.testing.rabbit import Client
    from txservices.testing.stage import Stage, WebSession
    from txservices.testing.utils import ResourcePipeline

__all__ = [
    "amqp_uri",
    "container_factory",
    "empty_config",
    "get_message_from_queue",
    "mock_container",
    "predictable_call_ids",
    "rabbit_config",
    "rabbit_manager",
    "rabbit_ssl_config",
    "rabbit_ssl_options",
    "rabbit_ssl_uri",
    "rabbit_uri",
    "runner_factory",
    "txservices_run",
    "txservices_stage",
    "vhost_pipeline",
    "web_config",
    "web_config_port",
    "web_session",
    "websocket",
]

TIMEOUT = 120  # seconds for a test, or for one `txservices_run`; trial has the same
AMQP_URI = "pyamqp://guest:guest@localhost:5672/"  # used if --rabbit-api-uri is given and --amqp-uri is not
VHOST = "nameko_test_{}"  # and ten letters; a script can find and delete those of a killed run by this name

Run = Callable[..., Any]


def option(config: pytest.Config, name: str) -> Any:
    """The value of one of ``txservices.testing.plugin``'s options, None where that plugin is not loaded."""
    return config.getoption(f"txservices_{name}", None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test that uses one of these fixtures."""
    if "txservices_run" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_test: Any = pyfuncitem.funcargs["txservices_run"]
    run_test(pyfuncitem.obj, **arguments)
    return True


@pytest.fixture(scope="session")
def txservices_run() -> Run:
    """``txservices_run(function, *args)`` calls it in the reactor's thread, waits, and gives its result or error."""
    from txservices.standalone.reactor_thread import in_reactor
    from txservices.utils import default_reactor, tasks

    def run(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return in_reactor(lambda: tasks.call(function, *args, **kwargs).addTimeout(TIMEOUT, default_reactor()))

    return run


# The broker -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rabbit_manager(request: pytest.FixtureRequest, txservices_run: Run) -> Client:
    """A client of the management at ``--rabbit-api-uri``: ``await rabbit_manager.get_queues(vhost)``."""
    from txservices.testing.rabbit import Client

    return Client(management_uri(request.config))


def management_uri(config: pytest.Config) -> str:
    """The address of RabbitMQ's management. ``UsageError`` if it was not given."""
    uri = option(config, "api_uri")
    if not uri:
        raise pytest.UsageError(
            "rabbit_manager needs RabbitMQ's management: give its address, as in"
            " --rabbit-api-uri http://guest:guest@localhost:15672"
        )
    return str(uri)


@pytest.fixture(scope="session")
def vhost_pipeline(
    request: pytest.FixtureRequest, txservices_run: Run, rabbit_manager: Client
) -> Iterator[ResourcePipeline[str]]:
    """Makes virtual hosts ahead of time: ``async with vhost_pipeline.get() as vhost``."""
    from txservices.testing.utils import ResourcePipeline

    create, destroy = vhosts(request.config, rabbit_manager)
    with entered(txservices_run, ResourcePipeline(create, destroy).run()) as pipeline:
        yield pipeline


def vhosts(config: pytest.Config, manager: Any) -> tuple[Callable[[], Any], Callable[[str], Any]]:
    """A function that makes a virtual host for a test, and one that deletes it."""
    import random
    import string

    from txservices.testing.rabbit import HTTPError
    from txservices.utils.address import parse_address
    from txservices.utils.retry import retry

    username = parse_address(option(config, "amqp_uri") or AMQP_URI).username

    async def create() -> str:
        vhost = VHOST.format("".join(random.choices(string.ascii_lowercase, k=10)))
        await manager.create_vhost(vhost)
        await manager.set_vhost_permissions(vhost, username, ".*", ".*", ".*")
        return vhost

    @retry(for_exceptions=HTTPError)  # a busy broker may answer 500, and delete the virtual host all the same
    async def destroy(vhost: str) -> None:
        try:
            await manager.delete_vhost(vhost)
        except HTTPError as error:
            if error.response.status_code != 404:
                raise

    return create, destroy


@contextmanager
def entered(run: Run, context: Any) -> Iterator[Any]:
    """Use an asynchronous context manager in a plain ``with``."""
    value = run(context.__aenter__)
    try:
        yield value
    finally:
        run(context.__aexit__, None, None, None)


@pytest.fixture
def txservices_stage(request: pytest.FixtureRequest, txservices_run: Run) -> Iterator[Stage]:
    """The test's ``txservices.testing.stage.Stage``. Everything that it started ends with the test."""
    from txservices.testing.stage import Stage

    with ExitStack() as ending:
        uri = option(request.config, "amqp_uri")
        if option(request.config, "api_uri"):
            vhost = ending.enter_context(entered(txservices_run, request.getfixturevalue("vhost_pipeline").get()))
            uri = urlsplit(uri or AMQP_URI)._replace(path=f"/{vhost}").geturl()
        stage = Stage(**({"AMQP_URI": uri} if uri else {}))
        ending.callback(txservices_run, stage.kill)
        yield stage


@pytest.fixture
def rabbit_config(txservices_stage: Stage) -> dict[str, Any]:
    """A configuration with the address of the test's broker, and also its ``username`` and ``vhost``."""
    from txservices.utils.address import parse_address

    address = parse_address(txservices_stage.config["AMQP_URI"])
    return {**txservices_stage.config, "username": address.username, "vhost": address.vhost}


@pytest.fixture
def rabbit_uri(rabbit_config: dict[str, Any]) -> str:
    """The address of the test's broker."""
    uri: str = rabbit_config["AMQP_URI"]
    return uri


@pytest.fixture
def amqp_uri(rabbit_uri: str) -> str:
    """The same as ``rabbit_uri``, under nameko 2's name."""
    return rabbit_uri


@pytest.fixture
def rabbit_ssl_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The value of ``AMQP_SSL``: each ``--amqp-ssl-option``."""
    return dict(option(request.config, "ssl_options"))


@pytest.fixture
def rabbit_ssl_uri(request: pytest.FixtureRequest, rabbit_uri: str) -> str:
    """The address of the test's broker for TLS, with the port ``--amqp-ssl-port``."""
    parts = urlsplit(rabbit_uri)
    if parts.scheme == "memory":
        raise pytest.UsageError("a broker in memory has no TLS: give --amqp-uri, and --amqp-ssl-port unless it is 5671")
    place = parts.netloc.removesuffix(f":{parts.port}")
    return parts._replace(netloc=f"{place}:{option(request.config, 'ssl_port')}").geturl()


@pytest.fixture
def rabbit_ssl_config(
    rabbit_config: dict[str, Any], rabbit_ssl_uri: str, rabbit_ssl_options: dict[str, Any]
) -> dict[str, Any]:
    """``rabbit_config`` with TLS."""
    return {**rabbit_config, "AMQP_URI": rabbit_ssl_uri, "AMQP_SSL": rabbit_ssl_options}


# The web --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def web_config(txservices_stage: Stage) -> dict[str, Any]:
    """A configuration with an address for HTTP. No port is opened: see ``web_session``."""
    return {"WEB_SERVER_ADDRESS": txservices_stage.config["WEB_SERVER_ADDRESS"]}


@pytest.fixture
def web_config_port(web_config: dict[str, Any]) -> int:
    """The port in ``web_config``."""
    return int(web_config["WEB_SERVER_ADDRESS"].rpartition(":")[2])


@pytest.fixture
def web_session(txservices_stage: Stage) -> WebSession:
    """treq's client for the test's services, in memory."""
    return txservices_stage.web_session()


@pytest.fixture
def websocket(txservices_stage: Stage) -> Callable[[], Any]:
    """``socket = await websocket()`` opens a WebSocket to the services, a ``testing.websocket.VirtualSocket``."""
    from txservices.testing.websocket import open_socket

    return lambda: open_socket(txservices_stage.web_endpoint(), txservices_stage.config["WEB_SERVER_ADDRESS"])


# Services -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def container_factory(txservices_stage: Stage) -> Callable[..., Any]:
    """``container_factory(service_cls, config)`` makes a container. It is killed when the test ends."""
    return txservices_stage.container


@pytest.fixture
def runner_factory(txservices_stage: Stage) -> Callable[..., Any]:
    """``runner_factory(config, *service_classes)`` makes a runner. It is killed when the test ends."""
    return txservices_stage.runner


@pytest.fixture
def get_message_from_queue(txservices_stage: Stage) -> Callable[..., Any]:
    """``await get_message_from_queue(queue)`` takes a message, with ``payload``, ``headers`` and ``properties``."""
    return txservices_stage.get_message


@pytest.fixture
def empty_config() -> dict[str, Any]:
    """A configuration with nothing in it."""
    return {}


@pytest.fixture
def mock_container(empty_config: dict[str, Any]) -> Mock:
    """A double of a container. Extensions can be bound to it."""
    from txservices.constants import DEFAULT_MAX_WORKERS, DEFAULT_SERIALIZER
    from txservices.containers import ServiceContainer
    from txservices.shared import SharedServices

    container = Mock(spec=ServiceContainer)
    container.config = empty_config
    container.service_name = "service"
    container.shared = SharedServices()
    container.shared_extensions = {}
    container.max_workers = DEFAULT_MAX_WORKERS
    container.serializer = DEFAULT_SERIALIZER
    container.accept = [DEFAULT_SERIALIZER]
    return container


@pytest.fixture
def predictable_call_ids() -> Iterator[Mock]:
    """Make call ids end in 0, 1, 2, … instead of unique texts."""
    with patch("txservices.extensions.new_call_id") as new_call_id:
        new_call_id.side_effect = (str(number) for number in count())
        yield new_call_id
