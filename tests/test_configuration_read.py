"""The places where a configuration is read, keys that are not ours, and what the documents say of keys."""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT
from txservices import configuration, constants
from txservices.amqp.connections import Connections
from txservices.amqp.consume import Consumer
from txservices.amqp.publish import Publisher
from txservices.configuration import KEYS, Key
from txservices.containers import ServiceContainer
from txservices.exceptions import ConfigurationError
from txservices.runners import ServiceRunner
from txservices.standalone import blocking
from txservices.standalone.events import event_dispatcher
from txservices.standalone.rpc import ClusterRpcProxy

WRONG = {"AMQP_URI": "memory://m", "HEARTBEAT": "x", "max_workers": "ten", "RPC_TIMEOUT": "60", "serializer": "xml"}


class Starts(SynchronousTestCase):
    """The places where a configuration is read."""

    def test_all_at_once(self) -> None:
        """Whoever begins with a config tells everything that is wrong in it, in one error."""
        service = type("Service", (), {"name": "service"})
        for begin in [
            lambda: ServiceRunner(WRONG),
            lambda: ServiceContainer(service, WRONG, clock=Clock()),
            lambda: Connections.from_config(WRONG, Clock()),
            lambda: ClusterRpcProxy(WRONG),
            lambda: event_dispatcher(WRONG),
            lambda: blocking.ClusterRpcProxy(WRONG),
            lambda: blocking.event_dispatcher(WRONG),
        ]:
            error = self.assertRaises(ConfigurationError, begin)
            starts = [line.partition(":")[0] for line in error.args]
            wrong = ["max_workers", "RPC_TIMEOUT", "HEARTBEAT", 'Please register a serializer for "xml" format']
            self.assertEqual(starts, wrong)
            self.assertEqual(str(error), "\n".join(error.args))

    def test_alone(self) -> None:
        """A publisher and a consumer by themselves tell what is wrong with what they are given."""
        publisher = Publisher("http://h", login_method="plain")
        for begin in [
            lambda: publisher.publish("x"),
            lambda: Consumer("http://h", login_method="plain"),
        ]:
            error = self.assertRaises(ConfigurationError, begin)
            self.assertEqual(len(error.args), 2)


class Unknown(SynchronousTestCase):
    """Keys that are not ours."""

    def test_near(self) -> None:
        """One that is near to ours, in whatever case, is told with ours."""
        for name, meant in [
            ("RPC_TIMOUT", "RPC_TIMEOUT"),
            ("rpc_timeout", "RPC_TIMEOUT"),
            ("MAX_WORKERS", "max_workers"),
            ("max-workers", "max_workers"),
            ("PREFETCH_COUNT", "prefetch_count"),
            ("SERIALIZER", "serializer"),
            ("serializers", "SERIALIZERS"),
            ("AMQP_URL", "AMQP_URI"),
            ("HEARTBEATS", "HEARTBEAT"),
        ]:
            self.assertEqual(configuration.mistyped({name: 1}), {name: meant})

    def test_far(self) -> None:
        """Any other name is a service's own business."""
        names: list[Any] = [
            "DATABASE_URI",
            "DB_URI",
            "TIMEOUT",
            "HTTP_TIMEOUT",
            "WORKERS",
            "WEB",
            "URL",
            "log",
            "",
            1,
            None,
            "x.y",
        ]
        self.assertEqual(configuration.mistyped(dict.fromkeys([*names, *KEYS])), {})

    def test_said_once(self) -> None:
        """A runner says it once, however many services it has; so does a container by itself. No value is shown."""
        service = type("Service", (), {"name": "service"})

        def with_runner() -> None:
            runner = ServiceRunner({"RPC_TIMOUT": "s3cret"}, clock=Clock())
            runner.add_service(service)
            runner.add_service(type("Other", (), {"name": "other"}))

        for begin in (with_runner, lambda: ServiceContainer(service, {"RPC_TIMOUT": "s3cret"}, clock=Clock())):
            with capturedLogs() as events:
                begin()
            line = "the configuration's 'RPC_TIMOUT' means nothing here: is 'RPC_TIMEOUT' meant?"
            self.assertEqual([formatEvent(event) for event in events], [line])


class Written(SynchronousTestCase):
    """docs/configuration.md: its table of keys."""

    def test_page(self) -> None:
        """Every key has its row, in the table's order, with the same default and the same words."""
        with open(os.path.join(ROOT, "docs", "configuration.md"), encoding="utf-8") as file:
            rows = re.findall(r"^\| `.*", file.read(), re.MULTILINE)
        self.assertEqual("\n".join(rows), "\n".join(row(key) for key in KEYS.values()))

    def test_constants(self) -> None:
        """nameko's names for keys and defaults are the table's."""
        for name, value in vars(constants).items():
            if name.endswith("_CONFIG_KEY"):
                self.assertIn(value, KEYS)


def row(key: Key[Any]) -> str:
    """A row of the page's table."""
    null = f"; null is for {key.null}" if key.null else ""
    return f"| `{key.name}` | {default(key)} | {key.use}{null} |"


def default(key: Key[Any]) -> str:
    """The default as the page has it."""
    if key.default is None:
        return key.without
    if key.unit == "bytes":
        return f"{key.default // 1024**2} MiB"
    if isinstance(key.default, bool):
        return str(key.default).lower()
    if isinstance(key.default, int):
        return f"{key.default} {key.unit}".strip()
    if isinstance(key.default, float):
        return f"{key.default:g} {key.unit}".strip()
    return f"`{key.default}`"
