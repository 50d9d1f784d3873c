"""What an observer that counts for Prometheus makes of the events that it hears."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from prometheus_client import REGISTRY, Gauge
from prometheus_client.registry import Collector
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.monitoring.scraping import Scrape
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.exceptions import PublishTimeout
from txservices.monitoring import families, series
from txservices.monitoring.metrics import LOOK_EVERY, Metrics, exposition
from txservices.observers import CANCELLED, ERROR, EXPECTED, OK, TIMEOUT, observers
from txservices.rpc import rpc
from txservices.timer import timer


class Service:
    """A service with a method of each kind."""

    name = "service"

    @rpc
    def called(self) -> None: ...

    @event_handler("other", "happened")
    def heard(self, payload: Any) -> None: ...

    @timer(interval=1)
    def ticked(self) -> None: ...


def worker_of(method: str, container: ServiceContainer) -> Any:
    """A worker of a method, as far as observers look at one."""
    (entrypoint,) = (each for each in container.entrypoints if each.method_name == method)
    return SimpleNamespace(entrypoint=entrypoint, service_name=container.service_name, container=container)


def call_of(service: str, method: str, caller: str = "caller") -> Any:
    """A call, as far as observers look at one."""
    return SimpleNamespace(service=service, name=f"{service}.{method}", client=SimpleNamespace(name=caller))


class MetricsCase(SynchronousTestCase):
    """Has the process counted for the time of a test, by a clock of its own."""

    def setUp(self) -> None:
        self.patch(observers, "containers", [])  # other tests leave theirs, which have not ended
        self.clock = Clock()
        self.metrics = Metrics({}, self.clock)
        observers.add(self.metrics)
        self.addCleanup(self.metrics.stop)
        self.addCleanup(observers.remove, self.metrics)


class EventsTests(MetricsCase):
    """One event after the other."""

    def container(self) -> ServiceContainer:
        return ServiceContainer(Service, {"AMQP_URI": "memory://"}, clock=self.clock)

    def test_workers(self) -> None:
        """Workers are counted by service, method, entrypoint and outcome, under the name that they have elsewhere."""
        container = self.container()
        table = [
            ("called", "Rpc", "rpc_server_call_duration_seconds", {"rpc_system_name": "nameko"}),
            ("heard", "EventHandler", "messaging_process_duration_seconds", {"messaging_system": "rabbitmq"}),
            ("ticked", "Timer", "txservices_worker_duration_seconds", {}),
        ]
        for method, entrypoint, name, labels in table:
            worker = worker_of(method, container)
            for outcome in (OK, OK, ERROR, EXPECTED, TIMEOUT, CANCELLED):
                self.metrics.worker_ended(worker, outcome, 0.0, 0.3, None)
            scrape = Scrape()
            labels = {**labels, "service_name": "service", "method": method, "entrypoint": entrypoint}
            self.assertEqual(scrape.value(f"{name}_count", **labels, outcome="ok"), 2)
            self.assertEqual(scrape.value(f"{name}_sum", **labels, outcome="ok"), 0.6)
            self.assertEqual(scrape.value(f"{name}_bucket", **labels, outcome="ok", le="0.25"), 0)
            self.assertEqual(scrape.value(f"{name}_bucket", **labels, outcome="ok", le="0.5"), 2)
            failed = {
                each["error_type"] for _, each, _ in scrape.found(f"{name}_count", **labels) if "error_type" in each
            }
            self.assertEqual(failed, {"error", "timeout"})
            self.assertEqual(len(scrape.found(f"{name}_count", **labels)), 5)

    def test_rpc_method(self) -> None:
        """A method of RPC has its name as its callers have it."""
        self.metrics.worker_ended(worker_of("called", self.container()), OK, 0.0, 0.1, None)
        self.assertEqual(Scrape().value("rpc_server_call_duration_seconds_count", rpc_method="service.called"), 1)

    def test_two_containers(self) -> None:
        """Two containers of services of one name have one series."""
        for _ in range(2):
            self.metrics.worker_ended(worker_of("called", self.container()), OK, 0.0, 0.1, None)
        self.assertEqual(Scrape().value("rpc_server_call_duration_seconds_count", outcome="ok"), 2)

    def test_waited(self) -> None:
        """What workers had waited for their turn adds up."""
        worker = worker_of("called", self.container())
        for waited in (0.0, 1.5, 2.0):
            self.metrics.worker_ended(worker, OK, waited, 0.1, None)
        self.assertEqual(Scrape().value("txservices_worker_wait_seconds_total", method="called"), 3.5)

    def test_calls(self) -> None:
        """Calls are counted by who calls what, with their outcome."""
        for outcome in (OK, OK, TIMEOUT, ERROR, CANCELLED):
            self.metrics.call_ended(call_of("maths", "add"), outcome, 2.0, None)
        labels = {"service_name": "caller", "service_peer_name": "maths", "rpc_method": "maths.add"}
        name = "rpc_client_call_duration_seconds_count"
        counts = {each["outcome"]: number for _, each, number in Scrape().found(name, **labels)}
        self.assertEqual(counts, {"ok": 2, "timeout": 1, "error": 1, "cancelled": 1})
        self.assertEqual(Scrape().value(name, error_type="timeout"), 1)

    def test_made_up_calls(self) -> None:
        """Names of services and methods that are made up are one series beyond the bound."""
        self.patch(series, "SERIES_MAX", 10)
        for number in range(15):
            self.metrics.call_ended(call_of(f"made-up-{number}", "x"), ERROR, 1.0, None)
        name = "rpc_client_call_duration_seconds_count"
        self.assertEqual(len(Scrape().found(name)), 11)
        self.assertEqual(Scrape().value(name, service_peer_name="other", rpc_method="other", outcome="error"), 5)

    def test_published(self) -> None:
        """Messages are counted by exchange, with the time of the confirm and the class of the error."""
        self.metrics.message_confirmed("nameko-rpc", "a.b", 0.02, None)
        self.metrics.message_confirmed("nameko-rpc", "a.c", 0.02, None)
        self.metrics.message_confirmed("nameko-rpc", "a.c", 9.0, PublishTimeout("nameko-rpc", "a.c"))
        name = "messaging_client_operation_duration_seconds_count"
        labels = {"messaging_destination_name": "nameko-rpc", "messaging_operation_name": "publish"}
        counts = [(each.get("error_type"), number) for _, each, number in Scrape().found(name, **labels)]
        self.assertEqual(counts, [(None, 2), ("PublishTimeout", 1)])

    def test_counters(self) -> None:
        """Everything else that happens is counted, each with its labels."""
        metrics = self.metrics
        for _ in range(2):
            metrics.event_dispatched("shop", "sold")
            metrics.message_rejected("rpc-shop", True)
            metrics.message_retried("evt-a--b.c", 1, 5.0, KeyError())
            metrics.message_parked("evt-a--b.c", "KeyError")
        metrics.message_rejected("rpc-shop", False)
        table = [
            ("txservices_events_dispatched_total", {"service_name": "shop", "event_type": "sold"}),
            ("txservices_messages_rejected_total", {"messaging_destination_name": "rpc-shop", "requeued": "true"}),
            ("txservices_messages_retried_total", {"messaging_destination_name": "evt-a--b.c"}),
            ("txservices_messages_parked_total", {"error_type": "KeyError"}),
        ]
        for name, labels in table:
            self.assertEqual(Scrape().value(name, **labels), 2, name)
        self.assertEqual(Scrape().value("txservices_messages_rejected_total", requeued="false"), 1)

    def test_queues_of_an_instance(self) -> None:
        """Queues that only differ in the id of an instance are one series."""
        for end in ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "3f2504e0-4f89-41d3-9a0c-0305e82c3302"):
            self.metrics.message_rejected(f"rpc.reply-shop-{end}", True)
        name = "txservices_messages_rejected_total"
        self.assertEqual(Scrape().value(name, messaging_destination_name="rpc.reply-shop-*"), 2)

    def test_reconnects(self) -> None:
        """A connection that comes back is counted, its first coming is not."""
        for _ in range(2):
            self.metrics.connected("broker", "publishes")
            self.metrics.disconnected("broker", "publishes", "it was cut")
        self.metrics.connected("broker", "consumes")
        self.assertEqual(Scrape().value("txservices_reconnects_total", connection="publishes"), 1)
        self.assertEqual(Scrape().value("txservices_reconnects_total", connection="consumes"), 0)

    def test_http(self) -> None:
        """Requests are counted by method, route, status and scheme; a 500 is an error."""
        for status in (200, 200, 404, 503):
            self.metrics.request_ended("GET", "/get/<int:value>", status, 0.1, "http")
        self.metrics.request_ended("GET", "/get/<int:value>", 200, 0.1, "https")
        name = "http_server_request_duration_seconds_count"
        labels = {"http_request_method": "GET", "http_route": "/get/<int:value>", "url_scheme": "http"}
        counts = {each["http_response_status_code"]: number for _, each, number in Scrape().found(name, **labels)}
        self.assertEqual(counts, {"200": 2, "404": 1, "503": 1})
        self.assertEqual(Scrape().value(name, error_type="503"), 1)
        self.assertEqual(Scrape().value(name, url_scheme="https"), 1)

    def test_made_up_requests(self) -> None:
        """Methods and URLs that clients make up are one series."""
        for number in range(5):
            self.metrics.request_ended(f"BREW{number}", None, 404, 0.1, "http")
        (sample,) = Scrape().found("http_server_request_duration_seconds_count")
        self.assertEqual((sample[1]["http_request_method"], sample[2]), ("_OTHER", 5))
        self.assertNotIn("http_route", sample[1])

    def test_reactor_delay(self) -> None:
        """It is counted how late a timer fires, also when several ticks of it were missed."""
        for seconds in (LOOK_EVERY, LOOK_EVERY, LOOK_EVERY + 0.06, 4 * LOOK_EVERY):
            self.clock.advance(seconds)
        late = {each["le"]: number for _, each, number in Scrape().found("txservices_reactor_delay_seconds_bucket")}
        self.assertEqual((late["0.005"], late["0.075"], late["0.5"], late["1.0"]), (2, 3, 3, 4))

    def test_stopped(self) -> None:
        """Nothing is left to happen when it has stopped."""
        metrics = Metrics({}, self.clock)
        metrics.stop()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class ExpositionTests(MetricsCase):
    """What a scrape gets."""

    def test_every_metric(self) -> None:
        """Every metric has its name, type and meaning from the start."""
        text = exposition()[0].decode()
        for family in families.FAMILIES:
            self.assertIn(f"# TYPE {family.name} {family.kind}\n", text)
            self.assertIn(f"# HELP {family.name} {family.meaning}\n", text)

    def test_content_type(self) -> None:
        """It is Prometheus's text format in UTF-8."""
        self.assertRegex(exposition()[1], r"text/plain; version=[\d.]+; charset=utf-8")

    def test_names_of_strangers(self) -> None:
        """HTML, quotes, controls and what is no Unicode come out as they went in, or escaped, and can be read."""
        for number, name in enumerate(['<script>alert("x")</script>', "a\nb", "back\\slash", "\x00\x1b[2J", "\udcff"]):
            for _ in range(number + 1):
                self.metrics.event_dispatched("shop", name)
        told = {
            labels["event_type"]: number for _, labels, number in Scrape().found("txservices_events_dispatched_total")
        }
        self.assertEqual(
            told,
            {'<script>alert("x")</script>': 1, "a\nb": 2, "back\\slash": 3, "\\x00\\x1b[2J": 4, "\\udcff": 5},
        )

    def test_metrics_of_a_service(self) -> None:
        """What a service counts by prometheus-client itself goes along, unless it takes a name of ours."""
        own, taken = Gauge("carts", "Carts."), Gauge("txservices_workers_running", "Mine.")
        self.addCleanup(REGISTRY.unregister, own)
        self.addCleanup(REGISTRY.unregister, taken)
        own.set(3)
        taken.set(99)
        self.assertEqual(Scrape().value("carts"), 3)
        self.assertEqual(Scrape().found("txservices_workers_running"), [])

    def test_failing_collector(self) -> None:
        """A collector of a service's that fails costs only what it would have told."""

        class Failing(Collector):
            def collect(self) -> Any:
                raise ValueError("no")

            def describe(self) -> Any:
                return []

        failing = Failing()
        REGISTRY.register(failing)
        self.addCleanup(REGISTRY.unregister, failing)
        self.metrics.event_dispatched("shop", "sold")
        self.assertEqual(Scrape().value("txservices_events_dispatched_total"), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_without_metrics(self) -> None:
        """A process that is not counted tells of itself alone."""
        observers.remove(self.metrics)
        self.addCleanup(observers.add, self.metrics)
        self.assertEqual([name for name, _, _ in Scrape().samples if name.startswith("txservices")], [])

    def test_extra_missing(self) -> None:
        """Without prometheus-client the error has the line that installs it."""
        program = (
            "import sys; sys.modules['prometheus_client'] = None\n"
            "try:\n    import txservices.monitoring.metrics\n"
            "except ImportError as error:\n    print(error)"
        )
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        self.assertIn("pip install 'txservices[metrics]'", told)
