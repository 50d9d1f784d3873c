"""nameko's fixtures for pytest, for suites that were written for nameko: what they give waits.

They stand in front of those of ``txservices.testing.pytest``. A test runs in pytest's thread, and the reactor in one of
its own. Where no broker is given, each test has an embedded one, with a port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pytest

if TYPE_CHECKING:
    from txservices.migration.testing.rabbit import Client
    from txservices.migration.testing.stage import Stage
    from txservices.migration.testing.utils import ResourcePipeline

REQUESTS = "web_session is a session of requests, which is not installed: pip install 'txservices[nameko]'"


@pytest.fixture(scope="session")
def rabbit_manager(request: pytest.FixtureRequest) -> Client:
    """A client of the management at ``--rabbit-api-uri``: ``rabbit_manager.get_queues(vhost)``."""
    from txservices.migration.testing.rabbit import Client
    from txservices.testing.pytest import management_uri

    return Client(management_uri(request.config))


@pytest.fixture(scope="session")
def vhost_pipeline(request: pytest.FixtureRequest, rabbit_manager: Client) -> Iterator[ResourcePipeline]:
    """Makes virtual hosts: ``with vhost_pipeline.get() as vhost``."""
    from txservices.migration.testing.utils import ResourcePipeline
    from txservices.migration.waiting import waits
    from txservices.testing.pytest import vhosts

    create, destroy = vhosts(request.config, rabbit_manager)
    with ResourcePipeline(waits(create), waits(destroy)).run() as pipeline:
        yield pipeline


@pytest.fixture
def txservices_stage(request: pytest.FixtureRequest, txservices_run: Callable[..., Any]) -> Iterator[Stage]:
    """The test's services. Everything that it started ends with the test."""
    from txservices.migration.testing.stage import Stage
    from txservices.testing.utils import find_free_port

    stage = Stage(WEB_SERVER_ADDRESS=f"127.0.0.1:{find_free_port()}")
    try:
        yield stage
    finally:
        txservices_run(stage.kill)


@pytest.fixture
def rabbit_config(
    request: pytest.FixtureRequest, txservices_stage: Stage, txservices_run: Callable[..., Any]
) -> Iterator[dict[str, Any]]:
    """The configuration with the test's broker: a virtual host of its own, or an embedded broker with a port."""
    from txservices.testing.pytest import AMQP_URI, option

    if option(request.config, "api_uri"):
        uri = urlsplit(option(request.config, "amqp_uri") or AMQP_URI)
        with request.getfixturevalue("vhost_pipeline").get() as vhost:
            address = uri._replace(path=f"/{vhost}").geturl()
            yield {"AMQP_URI": address, "username": uri.username, "vhost": vhost}
        return
    address = option(request.config, "amqp_uri") or txservices_run(txservices_stage.listen)
    uri = urlsplit(address)
    yield {"AMQP_URI": address, "username": uri.username or "guest", "vhost": uri.path[1:] or "/"}


@pytest.fixture
def web_config(empty_config: dict[str, Any], txservices_stage: Stage) -> dict[str, Any]:
    """A configuration with an address for HTTP, at a free port."""
    empty_config["WEB_SERVER_ADDRESS"] = txservices_stage.config["WEB_SERVER_ADDRESS"]
    return empty_config


@pytest.fixture
def web_session(web_config_port: int) -> Iterator[Any]:
    """A session of requests, whose URLs need no host."""
    try:
        from requests import Session
    except ImportError as error:
        raise pytest.UsageError(f"{REQUESTS} ({error})") from None

    class WebSession(Session):
        def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
            return super().request(method, urljoin(f"http://127.0.0.1:{web_config_port}/", url), *args, **kwargs)

    with WebSession() as session:
        yield session


@pytest.fixture
def websocket(web_config_port: int) -> Iterator[Callable[[], Any]]:
    """``socket = websocket()`` opens a WebSocket to the services."""
    from txservices.migration.testing.websocket import make_virtual_socket

    apps: list[Any] = []

    def open_socket() -> Any:
        app, connect = make_virtual_socket("127.0.0.1", web_config_port)
        apps.append(app)
        return connect()

    yield open_socket
    for app in apps:
        app.close()


@pytest.fixture
def container_factory(txservices_stage: Stage) -> Callable[..., Any]:
    """``container_factory(service_cls, config)`` makes a container. It is killed when the test ends."""
    from txservices.migration.waiting import waits

    return waits(txservices_stage.container)


@pytest.fixture
def runner_factory(txservices_stage: Stage) -> Callable[..., Any]:
    """``runner_factory(config, *service_classes)`` makes a runner. It is killed when the test ends."""
    from txservices.migration.waiting import waits

    return waits(txservices_stage.runner)


@pytest.fixture
def get_message_from_queue(txservices_stage: Stage, rabbit_config: dict[str, Any]) -> Callable[..., Any]:
    """``get_message_from_queue(queue)`` takes a message, with ``payload``, ``headers`` and ``properties``."""
    from txservices.migration.waiting import waits

    txservices_stage.config.update(rabbit_config)
    return waits(txservices_stage.get_message)


@pytest.fixture
def fast_teardown() -> None:
    """Does nothing: here a test ends quickly."""
