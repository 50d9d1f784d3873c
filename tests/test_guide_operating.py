"""The examples of the guide about services in operation: observers, configuration, logs and traces."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from types import ModuleType
from typing import Any
from unittest.mock import patch

import yaml
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.logger import capturedLogs, formatEvent

from tests import processes
from tests.guide import GUIDE, Case, example
from tests.processes import EXAMPLES
from txservices import configuration
from txservices.command import settings
from txservices.containers import EXTENSION_TIMEOUT
from txservices.exceptions import ConfigurationError, RemoteError
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

OPERATING = os.path.join(EXAMPLES, "operating")


ENVIRON = {"AMQP_URI": "amqps://u:p@h/", "DATABASE_URL": "sqlite://"}


class Observers(Case):
    """docs/observers.md."""

    async def test_told(self) -> None:
        """StatsD gets a packet for each worker and call; each error goes out, with its call id, and not a caller's."""
        module = example("observers")
        sent = Heard()

        class Shop:
            name = "shop"

            @rpc(expected_exceptions=KeyError)
            def buy(self, what: str) -> Any:
                return {"hat": "a hat", "cat": 1 / (what != "cat")}[what]

        statsd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(statsd.close)
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        names = ["observers.StatsD", "observers.Errors"]
        with patch.object(sys, "path", [GUIDE, *sys.path]), patch.object(module.Errors, "send", noting(sent)):
            await self.start(Shop, OBSERVERS=names, STATSD=f"127.0.0.1:{statsd.getsockname()[1]}")
            shop = (await self.cluster()).shop
            await shop.buy("hat")
            for what in ("car", "cat"):
                with self.assertRaises(RemoteError):
                    await shop.buy(what)
            (body,) = await sent.wait()
            self.assertRegex(json.loads(body)["error"], "^ZeroDivisionError")
            self.assertRegex(json.loads(body)["call_id"], r"^shop\.buy\.")
            await self.stage.stop()
        packets = [re.sub(r":\d+\|ms", ":N|ms", statsd.recv(1000).decode()) for _ in range(6)]
        outcomes = {"workers": ("ok", "expected", "error"), "calls": ("ok", "error", "error")}
        of = {"workers": "workers.shop.buy", "calls": "calls.shop"}
        expected = [f"{of[what]}.{each}:1|c\n{of[what]}:N|ms" for what in of for each in outcomes[what]]
        self.assertEqual(sorted(packets), sorted(expected))
        self.flushLoggedErrors(ZeroDivisionError, KeyError)

    async def test_nobody_listens(self) -> None:
        """Without anybody at either address services work, and the log says that an error was not sent."""

        class Shop:
            name = "shop"

            @rpc
            def buy(self) -> None:
                raise ValueError("sold out")

        module = example("observers")
        closed = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        closed.bind(("127.0.0.1", 0))
        self.addCleanup(closed.close)
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        lines = Heard()
        path, warn = patch.object(sys, "path", [GUIDE, *sys.path]), patch.object(module.log, "warn", lines_of(lines))
        with path, warn, patch.dict(os.environ, no_proxy="*"):
            await self.start(
                Shop,
                OBSERVERS=["observers.StatsD", "observers.Errors"],
                STATSD=address,
                ERRORS_TO=f"http://{address}/",
            )
            for _ in range(3):
                with self.assertRaises(RemoteError):
                    await (await self.cluster()).shop.buy()
            (first, *_) = await lines.wait(3)
            await self.stage.stop()
        self.assertRegex(first, "^an error was not sent: .*refused")
        self.flushLoggedErrors(ValueError)


def noting(sent: Heard) -> Any:
    """A method that hears, in the reactor's thread, what it is called with."""
    return lambda self, body: reactor.callFromThread(sent, body)


def lines_of(lines: Heard) -> Any:
    """A logger's method that hears its lines."""
    return lambda text, **fields: lines(text.format(**fields))


class Operating(Case):
    """docs/configuration.md, docs/logging.md and docs/deploying.md."""

    def text(self, name: str) -> str:
        with open(os.path.join(OPERATING, name), encoding="utf-8") as file:
            return file.read()

    def test_configuration(self) -> None:
        """What the environment gives is in the configuration, which is right; without the broker it is not."""
        config = settings.parse(self.text("production.yaml"), "production.yaml", {**ENVIRON, "WORKERS": "5"})
        configuration.check(config)
        self.assertEqual((config["AMQP_URI"], config["max_workers"]), ("amqps://u:p@h/", 5))
        self.assertEqual(configuration.mistyped(config), {})
        error = self.assertRaises(
            ConfigurationError, settings.parse, self.text("production.yaml"), "production.yaml", {}
        )
        with open(os.path.join(processes.ROOT, "docs", "configuration.md"), encoding="utf-8") as page:
            self.assertIn(f"Error: {error}\n", page.read())

    def test_time_to_stop(self) -> None:
        """systemd and Docker wait for longer than a stop may take."""
        config = settings.parse(self.text("production.yaml"), "production.yaml", ENVIRON)
        longest = config["SHUTDOWN_TIMEOUT"] + 2 * EXTENSION_TIMEOUT
        unit = re.search(r"^TimeoutStopSec=(\d+)$", self.text("shop@.service"), re.MULTILINE)
        assert unit is not None
        compose = yaml.safe_load(self.text("compose.yaml"))["services"]["shop"]
        for seconds in (unit[1], compose["stop_grace_period"].removesuffix("s")):
            self.assertGreater(int(seconds), longest)

    async def test_the_command(self) -> None:
        """The unit and the image run one command, which serves; its log has the id of the call in each line."""
        unit = re.search(r"^ExecStart=\S+/txservices (.*) --config \S+$", self.text("shop@.service"), re.MULTILINE)
        image = re.search(r"^CMD (\[.*\])$", self.text("Dockerfile"), re.MULTILINE)
        assert unit is not None and image is not None
        self.assertEqual(["txservices", *unit[1].split(), "--config", "production.yaml"], json.loads(image[1]))
        environ = {
            "AMQP_URI": await self.stage.listen(),
            "DATABASE_URL": f"sqlite:///{os.path.abspath(self.mktemp())}",
            "SQL_LEVEL": "INFO",
        }
        config = os.path.join(OPERATING, "production.yaml")
        service = processes.txservices(self, *unit[1].split(), "--config", config, cwd=GUIDE, **environ)
        await service.line("running: orders")
        self.assertEqual(await (await self.cluster()).orders.place("spoon"), 1)
        await service.line(
            r"^20\S+ \S+ INFO sqlalchemy\.engine\S* \[orders\.place\.\S+ standalone\S+\] INSERT INTO orders"
        )
        await processes.stopped(service)


class Logs(Case):
    """docs/logging.md."""

    async def test_lines(self) -> None:
        """Both loggers log, and so does what measures the time."""
        module = example("logs")
        await self.start(module.Shop)
        with capturedLogs() as events, self.assertLogs("logs", "INFO") as records:
            await (await self.cluster()).shop.sell("spoon")
        lines = [formatEvent(event) for event in events if event["log_namespace"] == "logs"]
        self.assertEqual(lines, ["packing spoon"])
        self.assertEqual(records.output[0], "WARNING:logs:out of stock: spoon")
        self.assertRegex(records.output[1], r"^INFO:logs:sold spoon in \d+\.\d{3}s$")


class Tracing(Case):
    """docs/tracing.md."""

    async def test_set_up(self) -> None:
        """The lines of the page set up a provider, and the spans of the example go to its exporter."""
        with open(os.path.join(processes.ROOT, "docs", "tracing.md"), encoding="utf-8") as file:
            (block,) = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
        exported = InMemorySpanExporter()
        otlp = ModuleType("otlp")
        otlp.OTLPSpanExporter = lambda endpoint: exported
        module = example("traced")
        with (
            patch.dict(sys.modules, {"opentelemetry.exporter.otlp.proto.http.trace_exporter": otlp}),
            patch.object(trace, "set_tracer_provider") as set_up,
        ):
            exec(block.replace("TraceIdRatioBased(0.1)", "TraceIdRatioBased(1.0)"), {})
        (provider,) = set_up.call_args.args
        ordered: Heard = Heard()
        with (
            patch.object(trace, "get_tracer_provider", lambda: provider),
            patch.object(module, "tracer", provider.get_tracer("shop")),
            patch.object(module.Stock, "tell_supplier", lambda _, *order: succeed(ordered(order))),
        ):
            await self.start(module.Web, module.Shop, module.Stock, TRACES=True)
            response = await self.web_session().get("/sell/spoon", headers={"baggage": "customer=ada"})
            self.assertEqual(await response.text(), "spoon for 5, to ada")
            ((item, headers),) = await ordered.wait()
        await self.stage.stop()
        provider.shutdown()
        spans = exported.get_finished_spans()
        self.assertEqual(
            {span.name for span in spans},
            {
                "GET /sell/<item>",
                "shop.sell",
                "look up the price",
                "publish shop.events:sold",
                "process shop.events:sold:evt-shop-sold--stock.sold",
            },
        )
        self.assertEqual({span.resource.attributes["service.name"] for span in spans}, {"shop"})
        self.assertEqual(item, "spoon")
        self.assertEqual(
            (headers["baggage"], headers["traceparent"][3:35]), ("customer=ada", f"{spans[0].context.trace_id:032x}")
        )
