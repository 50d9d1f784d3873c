"""docs/operating.md and examples/operating: the table, the alerts and the dashboard, held against what is exported."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.monitoring.scraping import Scrape
from tests.processes import ROOT
from tests.services import ServicesCase
from txservices.breakers import CircuitBreaker
from txservices.events import EventDispatcher, event_handler
from txservices.exceptions import PublishTimeout, RemoteError, UnknownService
from txservices.monitoring.families import FAMILIES
from txservices.monitoring.metrics import Metrics
from txservices.monitoring.series import Family
from txservices.observers import ERROR, observers
from txservices.rpc import RpcProxy, rpc
from txservices.testing.services import entrypoint_waiter
from txservices.timer import timer
from txservices.web.handlers import http

OPERATING = os.path.join(ROOT, "examples", "operating")
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| ([^|]+) \| ([^|]*) \| (.+) \|")
QUESTION = re.compile(r'\| ([A-Z][\w ]+\?) \| `([^`]+)` \| `([^`]+)` \| ([\w ]+), "([^"]+)" \| (.+) \|')
BY_PROMETHEUS = "ALERTS"  # what Prometheus itself exports, of the rules that it has
ENDINGS = ("", "_bucket", "_count", "_sum")

# PromQL, as far as it is looked at here
NAME = re.compile(r"(?<![\w\"$.{])([a-z_]+[a-z]_[a-z_]+)\s*(?:\{([^}]*)\})?(?!\w*\s*\()")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPED = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


def text_of(name: str) -> str:
    with open(os.path.join(OPERATING, name), encoding="utf-8") as file:
        return file.read()


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels."""
    return [each for each in json.loads(text_of("dashboard.json"))["panels"] if each["type"] != "row"]


def queries() -> Iterator[tuple[str, str, str]]:
    """Where each query of alerts and dashboard stands, the query, and the text that shows its labels."""
    for group in yaml.safe_load(text_of("alerts.yaml"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"], " ".join(rule["annotations"].values())
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"]
    for each in json.loads(text_of("dashboard.json"))["annotations"]["list"]:
        yield each["name"], each["expr"], each["titleFormat"]
    for question, _, query, *_ in questions():
        if not query.startswith(BY_PROMETHEUS):
            yield question, query, ""


def guide() -> list[str]:
    """The lines of docs/operating.md."""
    with open(os.path.join(ROOT, "docs", "operating.md"), encoding="utf-8") as file:
        return file.read().splitlines()


def questions() -> list[tuple[str, ...]]:
    """An operator's questions: each with its command, its metric, the view of the page, its place there, and advice."""
    return [found.groups() for found in map(QUESTION.fullmatch, guide()) if found is not None]


def promtool(case: SynchronousTestCase, *arguments: str, given: str = "") -> str:
    """What Prometheus's own tool says, which must have no complaint."""
    path = shutil.which("promtool")
    if path is None:
        raise case.failureException("promtool is not installed: apt-get install -y prometheus")
    done = subprocess.run([path, *arguments], input=given, capture_output=True, text=True, cwd=OPERATING)
    case.assertEqual(done.returncode, 0, done.stdout + done.stderr)
    return done.stdout + done.stderr


class TableTests(SynchronousTestCase):
    """The page's table."""

    def test_table(self) -> None:
        """It has each metric with its type, unit, labels and meaning, in order, and no other."""
        lines = guide()
        section = lines[lines.index("## Metrics") :]  # other tables stand below other headings
        section = section[: next(number for number, line in enumerate(section[1:], 1) if line.startswith("## "))]
        rows = [ROW.fullmatch(line) for line in section if line.startswith("| `")]
        self.assertNotIn(None, rows, "a row is | `metric` | type | unit | labels | meaning |")

        def row_of(family: Family) -> tuple[str, ...]:
            labels = [*family.labels, *(f'{name}="{value}"' for name, value in family.fixed)]
            return family.name, family.kind, family.unit, ", ".join(f"`{each}`" for each in labels), family.meaning

        self.assertEqual([each.groups() for each in rows if each is not None], [row_of(each) for each in FAMILIES])


class QuestionsTests(SynchronousTestCase):
    """The ten questions, as far as nothing has to run for them. tests/command/test_questions.py types the commands."""

    def test_ten(self) -> None:
        """They are ten, each in a row of the table that has all columns."""
        self.assertEqual(len({question for question, *_ in questions()}), 10)
        self.assertEqual(len(questions()), 10)

    def test_places(self) -> None:
        """What each row names on the page is a heading or a column there."""
        assets = os.path.join(ROOT, "txservices", "page", "assets")
        text = ""
        for name in sorted(os.listdir(assets)):
            with open(os.path.join(assets, name), encoding="utf-8") as file:
                text += file.read()
        for question, _, _, _, place, _ in questions():
            heading = rf'(h\("(h1|h2|th)", [^()]*"{place}"\)|(tile|neighbours)\("{place}",)'
            self.assertRegex(text, heading, question)

    def test_alerts(self) -> None:
        """Each alert has its first step, in order."""
        rules = [each["alert"] for group in yaml.safe_load(text_of("alerts.yaml"))["groups"] for each in group["rules"]]
        steps = [line.split(" | ")[0].removeprefix("| ") for line in guide() if re.match(r"\| [A-Z]\w+ \| ", line)]
        self.assertEqual(steps, rules)


class PromtoolTests(SynchronousTestCase):
    """What Prometheus itself says of the examples."""

    def test_rules(self) -> None:
        """Every alert can be read."""
        self.assertRegex(promtool(self, "check", "rules", "alerts.yaml"), r"SUCCESS: \d+ rules found")

    def test_alerts(self) -> None:
        """Each alert fires when its unit test says, and not before."""
        self.assertIn("SUCCESS", promtool(self, "test", "rules", "alerts.test.yaml"))

    def test_each_alert_is_tested(self) -> None:
        """No alert has no unit test that has it fire, and none that has it quiet."""
        rules = [each["alert"] for group in yaml.safe_load(text_of("alerts.yaml"))["groups"] for each in group["rules"]]
        tests = [
            (each["alertname"], bool(each.get("exp_alerts")))
            for test in yaml.safe_load(text_of("alerts.test.yaml"))["tests"]
            for each in test["alert_rule_test"]
        ]
        self.assertEqual(set(tests), {(rule, fires) for rule in rules for fires in (True, False)})

    def test_dashboard(self) -> None:
        """Every query of the dashboard can be read."""
        variables = {"$service": "shop", "$instance": "host:9100"}
        rules = []
        for number, (_, query, _) in enumerate(queries()):
            for variable, value in variables.items():
                query = query.replace(variable, value)
            rules.append({"record": f"query:{number}", "expr": query})
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        self.assertIn(f"{len(rules)} rules found", promtool(self, "check", "rules", path))


class Shop:
    """Has something of everything that is measured."""

    name = "shop"
    bank = RpcProxy("bank", breaker=CircuitBreaker(minimum=1))
    stock = RpcProxy("stock")
    dispatch = EventDispatcher()

    @rpc
    async def sell(self, item: str) -> None:
        await self.dispatch("sold", item)
        await self.stock.take(item)

    @rpc
    async def pay(self) -> None:
        await self.bank.pay()

    @http("GET", "/shop/<item>")
    def show(self, request: Any, item: str) -> tuple[int, str]:
        return 503, item


class Stock:
    name = "stock"

    @rpc
    def take(self, item: str) -> None: ...

    @event_handler("shop", "sold")
    def sold(self, item: str) -> None:
        raise KeyError(item)

    @timer(interval=1000)
    def ticked(self) -> None: ...


class Exported(ServicesCase):
    """Every metric and label that is asked for is there in what a process exports."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(observers, "containers", [])  # other tests leave theirs, which have not ended

    async def scrape(self) -> Scrape:
        """What a process exports in which something of everything has happened."""
        metrics = Metrics({})
        observers.add(metrics)
        self.addCleanup(metrics.stop)
        self.addCleanup(observers.remove, metrics)
        await self.start(Shop, Stock)
        cluster = await self.cluster()
        async with entrypoint_waiter(self.stage.containers[1], "sold"):
            await cluster.shop.sell("egg")
        self.flushLoggedErrors(KeyError)
        await self.assertFailure(cluster.shop.pay(), RemoteError)
        self.flushLoggedErrors(UnknownService)
        await self.web_session().get("/shop/egg")
        for tell in (  # what takes longer to happen
            lambda: metrics.message_confirmed("shop.events", "sold", 0.1, PublishTimeout("shop.events", "sold")),
            lambda: metrics.message_rejected("rpc-shop", True),
            lambda: metrics.message_retried("rpc-shop", 1, 1.0, KeyError()),
            lambda: metrics.message_parked("rpc-shop", "KeyError"),
            lambda: metrics.worker_ended(self.worker(), ERROR, 0.1, 0.1, KeyError()),
        ):
            tell()
        return Scrape()

    def worker(self) -> Any:
        entrypoint = self.stage.containers[1].entrypoints[0]
        return SimpleNamespace(entrypoint=entrypoint, service_name="stock")

    async def test_queries(self) -> None:
        """A query asks for metrics and labels that are exported, and shows labels that it has kept."""
        labels: dict[str, set[str]] = {}
        for name, named, _ in (await self.scrape()).samples:
            labels.setdefault(name, set()).update(named)
        wrong = []
        for where, query, shown in queries():
            used = NAME.findall(GROUPED.sub("", query))
            self.assertTrue(used, f"{where}: no metric is seen in {query}")
            known = {"job", "instance"}
            for name, selected in used:
                known |= labels.get(name, set())
                if name not in labels:
                    wrong.append(f"{where}: {name} is not exported")
                for label in {*LABEL.findall(selected)} - {"instance", "job"} - labels.get(name, set()):
                    wrong.append(f"{where}: {name} has no label {label}")
            grouped = [each.strip() for group in GROUPED.findall(query) for each in group.split(",")]
            wrong += [f"{where}: no label {each}" for each in grouped if each not in known]
            kept = set(grouped) or known
            wrong += [f"{where}: {each} is shown, and is gone" for each in SHOWN.findall(shown) if each not in kept]
        self.assertEqual(wrong, [])

    async def test_labels(self) -> None:
        """No sample has a label that its metric's row in the table does not name."""
        known = {
            family.name + ending: {*family.labels, *dict(family.fixed)} for family in FAMILIES for ending in ENDINGS
        }
        for name, labels, _ in (await self.scrape()).samples:
            if name in known:
                self.assertLessEqual(set(labels) - {"le"}, known[name], name)

    async def test_promtool(self) -> None:
        """Prometheus can read what is exported, and has nothing to say against the names."""
        self.assertEqual(promtool(self, "check", "metrics", given=(await self.scrape()).text), "")
