"""pytest loads this where txservices is installed: nameko's options, and the fixtures of ``txservices.testing.pytest``.

nameko's plugin has options and fixtures of the same names. Where it is loaded too, the suite is one that was written
for nameko. It goes on as before, and this plugin only adds a line to the header, which says how to have ours.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from importlib.metadata import entry_points
from typing import Any

import pytest

FIXTURES = "txservices.testing.pytest"
NAMEKO = "pytest_nameko"  # the name of its entry point for pytest
STANDS_BACK = f"txservices: nameko's pytest plugin is here and gives the fixtures; for ours: pytest -p no:{NAMEKO}"


def key_and_value(text: str) -> tuple[str, Any]:
    """Key and value of ``KEY=VALUE``, whose value is YAML. The value of a key alone is True."""
    import yaml

    key, equals, value = text.strip().partition("=")
    return key, yaml.safe_load(value) if equals else True


# names of an option, which are nameko's -> arguments for argparse
OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("--amqp-uri", "--rabbit-amqp-uri"): {
        "dest": "txservices_amqp_uri",
        "help": "a broker for the tests; by default each test has a broker in memory. Its vhost is used as it is,"
        " unless --rabbit-api-uri is given",
    },
    ("--rabbit-api-uri", "--rabbit-ctl-uri"): {
        "dest": "txservices_api_uri",
        "help": "that broker's management, as http://guest:guest@localhost:15672: each test gets its own vhost",
    },
    ("--amqp-ssl-port",): {
        "dest": "txservices_ssl_port",
        "type": int,
        "default": 5671,
        "help": "that broker's port for TLS, for rabbit_ssl_config (default: 5671)",
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
        "help": "a key of AMQP_SSL in rabbit_ssl_config: ca_certs, certfile or keyfile (default: certs/cacert.pem,"
        " clientcert.pem, clientkey.pem). Can be given several times",
    },
    ("--blocking-detection",): {
        "dest": "txservices_blocking_detection",
        "action": "store_true",
        "help": "fail a test that blocks the reactor for more than a second, with the stack of the code that did",
    },
}


def nameko_is_loaded(plugins: pytest.PytestPluginManager) -> bool:
    """Whether nameko's plugin is loaded in this run, or is going to be."""
    if plugins.has_plugin(NAMEKO) or plugins.has_plugin("nameko.testing.pytest"):  # the second by hand, with -p
        return True
    if plugins.is_blocked(NAMEKO) or os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD"):
        return False
    return bool(entry_points(group="pytest11", name=NAMEKO))


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if nameko_is_loaded(pluginmanager):
        return
    group = parser.getgroup("txservices")
    for names, details in OPTIONS.items():
        group.addoption(*names, **details)
    pluginmanager.import_plugin(FIXTURES)


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if config.pluginmanager.has_plugin(FIXTURES) else STANDS_BACK


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("txservices_blocking_detection", False):
        config.pluginmanager.register(BlockingDetection())


class BlockingDetection:
    """Fails a test during which the watchdog logged that the reactor is blocked. nameko has eventlet's detection."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def observe(self, event: Any) -> None:
        """Keep the watchdog's messages. Called with every logged event, in any thread."""
        if event.get("log_namespace") == "txservices.watchdog" and "stack" in event:
            from twisted.logger import formatEvent

            self.told.append(formatEvent(event))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Watch the reactor from the moment that it runs."""
        run = yield
        if fixturedef.argname == "txservices_run":
            from twisted.logger import globalLogPublisher

            from txservices.utils import default_reactor
            from txservices.watchdog import watchdog

            observer: Any = self.observe
            globalLogPublisher.addObserver(observer)
            run(watchdog({}, default_reactor()).startService)
        return run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        self.told.clear()
        outcome = yield
        if self.told:
            pytest.fail("\n".join(self.told), pytrace=False)
        return outcome
