"""nameko's fixtures for pytest suites, over a ``Stage``. The reactor runs in a thread of its own, by crochet.

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
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, patch

import pytest

if TYPE_CHECKING:
    from txservices.testing.stage import Stage, WebSession

TIMEOUT = 120  # seconds for a test, or for one `run`; as many as trial's

Run = Callable[..., Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("txservices")
    try:
        group.addoption(
            "--amqp-uri",
            "--rabbit-amqp-uri",
            dest="txservices_amqp_uri",
            help="a broker for the tests, in place of one in memory for each; its vhost is used as it is",
        )
    except ValueError:
        pass  # nameko is installed beside this, and has the option


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
    try:
        import crochet
    except ImportError:
        raise pytest.UsageError("these fixtures run the reactor by crochet: pip install 'txservices[pytest]'") from None

    crochet.setup()

    def run(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return crochet.run_in_reactor(function)(*args, **kwargs).wait(TIMEOUT)

    return run


@pytest.fixture
def stage(request: pytest.FixtureRequest, run: Run) -> Iterator[Stage]:
    """The test's ``txservices.testing.stage.Stage``; all that it started ends with the test."""
    from txservices.testing.stage import Stage

    uri = request.config.getoption("txservices_amqp_uri", None)
    stage = Stage(**({"AMQP_URI": uri} if uri else {}))
    yield stage
    run(stage.kill)


@pytest.fixture
def amqp_uri(stage: Stage) -> str:
    """Where the test's broker is."""
    uri: str = stage.config["AMQP_URI"]
    return uri


@pytest.fixture
def rabbit_config(stage: Stage) -> dict[str, Any]:
    """A configuration with the test's broker."""
    return dict(stage.config)


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
    from txservices.constants import DEFAULT_MAX_WORKERS
    from txservices.containers import ServiceContainer, SharedServices

    container = Mock(spec=ServiceContainer)
    container.config = empty_config
    container.service_name = "service"
    container.shared = SharedServices()
    container.shared_extensions = {}
    container.max_workers = DEFAULT_MAX_WORKERS
    return container


@pytest.fixture
def predictable_call_ids() -> Iterator[Mock]:
    """Call ids end in 0, 1, 2, … instead of what is unique."""
    with patch("txservices.workers.new_call_id") as new_call_id:
        new_call_id.side_effect = (str(number) for number in count())
        yield new_call_id
