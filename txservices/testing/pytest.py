"""nameko's fixtures for pytest suites, over a ``Stage``. The reactor runs in a thread of its own.

    async def test_x(container_factory, rabbit_config):     # runs in the reactor's thread
        container = container_factory(ServiceX, rabbit_config)
        await container.start()

    def test_y(container_factory, rabbit_config, run):      # runs in pytest's, and waits
        container = container_factory(ServiceX, rabbit_config)
        run(container.start)

pytest loads this in every suite where txservices is installed: so what it needs is imported by the fixtures.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
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

TIMEOUT = 120  # seconds for a test, or for one `run`; as many as trial's
AMQP_URI = "pyamqp://guest:guest@localhost:5672/"  # where --rabbit-api-uri is given and --amqp-uri is not
VHOST = "nameko_test_{}"  # ten letters: what clears up after a killed run knows them by that

Run = Callable[..., Any]


def key_and_value(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, of which the value is YAML; a key alone is true."""
    import yaml

    key, equals, value = text.strip().partition("=")
    return key, yaml.safe_load(value) if equals else True


# option, its other name -> what argparse is to know of it. nameko's names.
OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--amqp-uri", "--rabbit-amqp-uri"): {
        "dest": "txservices_amqp_uri",
        "help": "a broker for the tests, in place of one in memory for each; its vhost is used as it is, unless"
        " --rabbit-api-uri is given",
    },
    ("--rabbit-api-uri", "--rabbit-ctl-uri"): {
        "dest": "txservices_api_uri",
        "help": "that broker's management, http://guest:guest@localhost:15672: each test gets a vhost of its own",
    },
    ("--amqp-ssl-port",): {
        "dest": "txservices_ssl_port",
        "type": int,
        "default": 5671,
        "help": "that broker's port for TLS, for rabbit_ssl_config (5671)",
    },
    ("--amqp-ssl-option",): {
        "dest": "txservices_ssl_options",
        "type": key_and_value,
        "action": "append",
        "metavar": "KEY=VALUE",
        "default": [
            ("ca_certs", "certs/cacert.pem"),
            ("certfile", "certs/clientcert.pem"),
            ("keyfile", "certs/clientkey.pem"),
        ],
        "help": "what AMQP_SSL has there: ca_certs, certfile and keyfile (certs/cacert.pem, clientcert.pem,"
        " clientkey.pem); may be given several times",
    },
    ("--blocking-detection",): {
        "dest": "txservices_blocking_detection",
        "action": "store_true",
        "help": "a test in which the reactor is held for more than a second fails, with the stack of what held it",
    },
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("txservices")
    for names, details in OPTIONS.items():
        try:
            group.addoption(*names, **details)
        except ValueError:
            pass  # nameko is installed beside this, and has the option


def option(config: pytest.Config, name: str) -> Any:
    return config.getoption(f"txservices_{name}", None)


def pytest_configure(config: pytest.Config) -> None:
    if option(config, "blocking_detection"):
        config.pluginmanager.register(BlockingDetection())


class BlockingDetection:
    """Fails a test during which the watchdog has said who holds the reactor. In place of eventlet's detection."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def observe(self, event: Any) -> None:
        """Called with everything that is logged, in any thread."""
        if event.get("log_namespace") == "txservices.watchdog" and "stack" in event:
            from twisted.logger import formatEvent

            self.told.append(formatEvent(event))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Watch the reactor, from when there is one."""
        run = yield
        if fixturedef.argname == "run":
            from twisted.internet import reactor
            from twisted.logger import globalLogPublisher

            from txservices.watchdog import watchdog

            observer: Any = self.observe
            globalLogPublisher.addObserver(observer)
            run(watchdog({}, reactor).startService)
        return run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        self.told.clear()
        outcome = yield
        if self.told:
            pytest.fail("\n".join(self.told), pytrace=False)
        return outcome


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an ``async def`` test that has one of these fixtures."""
    if "run" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_test: Any = pyfuncitem.funcargs["run"]
    run_test(pyfuncitem.obj, **arguments)
    return True


@pytest.fixture(scope="session")
def run() -> Run:
    """``run(function, *args)`` calls it in the reactor's thread, waits for what it gives, and gives or raises that."""
    from twisted.internet.defer import maybeDeferred

    from txservices.standalone.reactor_thread import in_reactor
    from txservices.utils import default_reactor

    def run(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return in_reactor(lambda: maybeDeferred(function, *args, **kwargs).addTimeout(TIMEOUT, default_reactor()))

    return run


# The broker -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rabbit_manager(request: pytest.FixtureRequest, run: Run) -> Client:
    """RabbitMQ's management, as ``--rabbit-api-uri`` names it: ``await rabbit_manager.get_queues(vhost)``."""
    uri = option(request.config, "api_uri")
    if not uri:
        raise pytest.UsageError(
            "rabbit_manager is RabbitMQ's management: give its address, as in"
            " --rabbit-api-uri http://guest:guest@localhost:15672"
        )
    from txservices.testing.rabbit import Client

    return Client(uri)


@pytest.fixture(scope="session")
def vhost_pipeline(request: pytest.FixtureRequest, run: Run, rabbit_manager: Client) -> Iterator[ResourcePipeline[str]]:
    """Virtual hosts, made ahead of time: ``async with vhost_pipeline.get() as vhost``."""
    import random
    import string

    from txservices.testing.rabbit import HTTPError
    from txservices.testing.utils import ResourcePipeline
    from txservices.utils.address import parse_address
    from txservices.utils.retry import retry

    username = parse_address(option(request.config, "amqp_uri") or AMQP_URI).username

    async def create() -> str:
        vhost = VHOST.format("".join(random.choices(string.ascii_lowercase, k=10)))
        await rabbit_manager.create_vhost(vhost)
        await rabbit_manager.set_vhost_permissions(vhost, username, ".*", ".*", ".*")
        return vhost

    @retry(for_exceptions=HTTPError)  # a broker that has much to do may say 500, and have deleted it the next time
    async def destroy(vhost: str) -> None:
        try:
            await rabbit_manager.delete_vhost(vhost)
        except HTTPError as error:
            if error.response.status_code != 404:
                raise

    with entered(run, ResourcePipeline(create, destroy).run()) as pipeline:
        yield pipeline


@contextmanager
def entered(run: Run, context: Any) -> Iterator[Any]:
    """An asynchronous context, for a plain ``with``."""
    value = run(context.__aenter__)
    try:
        yield value
    finally:
        run(context.__aexit__, None, None, None)


@pytest.fixture
def stage(request: pytest.FixtureRequest, run: Run) -> Iterator[Stage]:
    """The test's ``txservices.testing.stage.Stage``; all that it started ends with the test."""
    from txservices.testing.stage import Stage

    with ExitStack() as ending:
        uri = option(request.config, "amqp_uri")
        if option(request.config, "api_uri"):
            vhost = ending.enter_context(entered(run, request.getfixturevalue("vhost_pipeline").get()))
            uri = urlsplit(uri or AMQP_URI)._replace(path=f"/{vhost}").geturl()
        stage = Stage(**({"AMQP_URI": uri} if uri else {}))
        ending.callback(run, stage.kill)
        yield stage


@pytest.fixture
def rabbit_config(stage: Stage) -> dict[str, Any]:
    """A configuration with the test's broker; also the ``username`` and the ``vhost`` there."""
    from txservices.utils.address import parse_address

    address = parse_address(stage.config["AMQP_URI"])
    return {**stage.config, "username": address.username, "vhost": address.vhost}


@pytest.fixture
def rabbit_uri(rabbit_config: dict[str, Any]) -> str:
    """Where the test's broker is."""
    uri: str = rabbit_config["AMQP_URI"]
    return uri


@pytest.fixture
def amqp_uri(rabbit_uri: str) -> str:
    """The same, by the name that nameko 2 has for it."""
    return rabbit_uri


@pytest.fixture
def rabbit_ssl_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """``AMQP_SSL``, of every ``--amqp-ssl-option``."""
    return dict(option(request.config, "ssl_options"))


@pytest.fixture
def rabbit_ssl_uri(request: pytest.FixtureRequest, rabbit_uri: str) -> str:
    """Where the test's broker is to be had over TLS: at ``--amqp-ssl-port``."""
    parts = urlsplit(rabbit_uri)
    if parts.scheme == "memory":
        raise pytest.UsageError("a broker in memory has no TLS: give --amqp-uri, and --amqp-ssl-port if it isn't 5671")
    place = parts.netloc.removesuffix(f":{parts.port}")
    return parts._replace(netloc=f"{place}:{option(request.config, 'ssl_port')}").geturl()


@pytest.fixture
def rabbit_ssl_config(
    rabbit_config: dict[str, Any], rabbit_ssl_uri: str, rabbit_ssl_options: dict[str, Any]
) -> dict[str, Any]:
    """``rabbit_config`` over TLS."""
    return {**rabbit_config, "AMQP_URI": rabbit_ssl_uri, "AMQP_SSL": rabbit_ssl_options}


# The web --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def web_config(stage: Stage) -> dict[str, Any]:
    """A configuration with an address for HTTP. No port is opened: see ``web_session``."""
    return {"WEB_SERVER_ADDRESS": stage.config["WEB_SERVER_ADDRESS"]}


@pytest.fixture
def web_config_port(web_config: dict[str, Any]) -> int:
    """The port in ``web_config``."""
    return int(web_config["WEB_SERVER_ADDRESS"].rpartition(":")[2])


@pytest.fixture
def web_session(stage: Stage) -> WebSession:
    """treq's client of the test's services, in memory."""
    return stage.web_session()


@pytest.fixture
def websocket(stage: Stage) -> Callable[[], Any]:
    """``socket = await websocket()`` is a client of the test's services: a ``testing.websocket.VirtualSocket``."""
    from txservices.testing.websocket import open_socket

    return lambda: open_socket(stage.web_endpoint(), stage.config["WEB_SERVER_ADDRESS"])


# Services -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def container_factory(stage: Stage) -> Callable[..., Any]:
    """``container_factory(service_cls, config)`` makes a container, and it is killed when the test ends."""
    return stage.container


@pytest.fixture
def runner_factory(stage: Stage) -> Callable[..., Any]:
    """``runner_factory(config, *service_classes)`` makes a runner, and it is killed when the test ends."""
    return stage.runner


@pytest.fixture
def get_message_from_queue(stage: Stage) -> Callable[..., Any]:
    """``await get_message_from_queue(queue)`` takes a message out: it has ``payload``, ``headers``, ``properties``."""
    return stage.get_message


@pytest.fixture
def empty_config() -> dict[str, Any]:
    """A configuration with nothing in it."""
    return {}


@pytest.fixture
def mock_container(empty_config: dict[str, Any]) -> Mock:
    """A double of a container, to which extensions can be bound."""
    from txservices.constants import DEFAULT_MAX_WORKERS, DEFAULT_SERIALIZER
    from txservices.containers import ServiceContainer, SharedServices

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
    """Call ids end in 0, 1, 2, … instead of what is unique."""
    with patch("txservices.extensions.new_call_id") as new_call_id:
        new_call_id.side_effect = (str(number) for number in count())
        yield new_call_id
