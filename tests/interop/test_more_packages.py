"""More of nameko's extension packages: those that have a server of their own, are for other frameworks, or watch."""

from __future__ import annotations

import json
from typing import Any

from tests import processes, rabbitmq
from tests.interop import packages_env
from tests.interop.packages_case import CONFIG, FOLDER, PackagesCase
from tests.interop.test_as_it_is import ALONE
from tests.migration.test_as_it_is import OURS
from tests.processes import ROOT
from tests.rabbitmq import free_port
from txservices.events import event_handler
from txservices.exceptions import RemoteError
from txservices.testing.waiting import Heard


class Servers(PackagesCase):
    """Packages with a server, or with a client that listens."""

    async def test_grpc(self) -> None:
        """nameko-grpc serves all kinds of methods, to its provider, its own client and grpcio's."""
        greeter = self.services.uses_grpc
        answers = ["hello ada", "en", "ada, bob", ["a", "d", "a"], ["hello ada", "hello bob"], "UNKNOWN"]
        self.assertEqual(await greeter.by_dependency(), answers)
        self.assertEqual(await greeter.by_client(), answers)
        self.assertEqual(await greeter.by_grpcio(), answers)
        self.assertEqual(await greeter.late(), "DEADLINE_EXCEEDED")

    async def test_kafka(self) -> None:
        """nameko-kafka sends, and consumes with and without commits of its own; the library under it is a fake."""
        kafka = self.services.uses_kafka
        for topic in ("plain", "sure"):
            for text in ("first", "second"):
                await kafka.send(topic, text)
                self.assertEqual(await kafka.next(), [topic, text])
        self.assertIn("sure", await kafka.committed())
        self.assertNotIn("plain", await kafka.committed())

    async def test_bayeux_client(self) -> None:
        """nameko-bayeux-client subscribes, and has a worker for each event; the server is a fake."""
        bayeux = self.services.uses_bayeux
        for data in ({"a": 1}, 2):
            self.assertEqual(await bayeux.send(data), ["/news", data])
        asked = await bayeux.asked()
        self.assertEqual(asked[:3], [["/meta/handshake", None], ["/meta/subscribe", "/news"], ["/meta/connect", None]])

    async def test_salesforce(self) -> None:
        """nameko-salesforce's API takes a new session for one that is over, and its notifications come; with fakes."""
        salesforce = self.services.uses_salesforce
        self.assertEqual(await salesforce.contacts("ann", "bob", "cy"), ["ann", "bob", "cy"])
        self.assertEqual(await salesforce.change({"Id": 1}), ["Contacts", {"Id": 1}])
        self.assertEqual(await salesforce.asked(), [["/topic/Contacts"], "Bearer token of ada", ["Contacts"]])


class Data(PackagesCase):
    """Packages that keep or write data."""

    async def test_mongodb(self) -> None:
        """nameko-mongodb gives the database, and logs how each worker ends; the client is mongomock's."""
        people = self.services.uses_mongodb
        await people.add("ada")
        self.assertEqual(await people.logged(), ["add", "SUCCESS", False])
        await self.assertFailure(people.fail(), RemoteError)
        await people.names()
        ended = [await people.logged() for _ in range(3)]
        self.assertIn(["fail", "FAILED", True], ended)
        self.assertEqual(await people.names(), ["ada"])

    async def test_autocrud(self) -> None:
        """nameko-autocrud adds methods to the class, whose changes are told by events."""
        heard = Heard()

        class Listener:
            name = "listens_to_products"

            @event_handler("uses_autocrud", "#")
            def hear(self, data: Any) -> None:
                heard(data)

        await self.start(Listener)
        products = self.services.uses_autocrud
        await products.prepare()
        self.assertEqual(await products.create_product({"name": "tea"}), {"id": 1, "name": "tea"})
        await products.update_product(1, {"name": "green tea"})
        filters = [{"field": "name", "op": "like", "value": "%tea"}]
        self.assertEqual(await products.list_products(filters=filters), [{"id": 1, "name": "green tea"}])
        await products.delete_product(1)
        await self.assertFailure(products.get_product(1), RemoteError)
        created, updated, deleted = await heard.wait(3)
        self.assertEqual(created, {"product": {"id": 1, "name": "tea"}})
        self.assertEqual((updated["changed"], updated["before"]["name"]), (["name"], "tea"))
        self.assertEqual(deleted, {"product": {"id": 1, "name": "green tea"}})

    async def test_serializer(self) -> None:
        """nameko-serializer's dates and named tuples arrive as such."""
        told = await self.services.uses_serializer.tell()
        self.assertEqual(told, [2026, 0, 11, 1, 2, "Point"])


class Watching(PackagesCase):
    """Packages that look at workers and containers."""

    async def test_eventlog_dispatcher(self) -> None:
        """nameko-eventlog-dispatcher tells of each worker of some kinds, and what methods write."""
        heard = Heard()

        class Listener:
            name = "reads_logs"

            @event_handler("uses_eventlog", "log_event")
            def hear(self, data: Any) -> None:
                heard(data)

        await self.start(Listener)
        await self.services.uses_eventlog.quiet()
        await self.services.uses_eventlog.sell(5)
        fired, sold = await heard.wait(2)
        self.assertEqual((fired["event_type"], fired["entrypoint_name"]), ("entrypoint_fired", "sell"))
        self.assertEqual((sold["event_type"], sold["data"], sold["shop"]), ("sold", {"number": 5}, "here"))
        self.assertEqual((sold["call_id"], sold["entrypoint_protocol"]), (fired["call_id"], "Rpc"))

    async def test_opentelemetry(self) -> None:
        """opentelemetry's packages for nameko and nameko-grpc make spans of workers, events, messages and requests."""
        environ = {
            **self.running.environ,
            "PORT_GRPC": str(free_port()),
            "WEB_SERVER_ADDRESS": f"127.0.0.1:{free_port()}",
        }
        environ["AMQP_URI"] = self.config["AMQP_URI"] = rabbitmq.node().uri(rabbitmq.node().new_vhost())
        argv = [packages_env.python(), "-W", "ignore", "-m", "txservices", "run", "--nameko", "--config", CONFIG]
        process = processes.start(self, [*argv, "traced", "uses_grpc"], cwd=FOLDER, PYTHONPATH=ROOT, **environ)
        await process.line("^running: ")
        services = await self.cluster()
        await services.traced.sell(1)
        await self.assertFailure(services.traced.fail(), RemoteError)
        await services.uses_grpc.by_dependency()
        self.assertEqual(await services.traced.request(), 202)
        expected: list[tuple[str, str | None, str, str]] = [
            ("traced.sell", None, "SERVER", "OK"),
            ("Dispatch event traced.sold", "traced.sell", "PRODUCER", "UNSET"),
            ("traced.heard", "Dispatch event traced.sold", "SERVER", "OK"),
            ("Publish to default-exchange", "traced.heard", "PRODUCER", "UNSET"),
            ("traced.fail", None, "SERVER", "ERROR"),
            ("uses_grpc.by_dependency", None, "SERVER", "OK"),
            ("greetings.Greeter.greet", "uses_grpc.by_dependency", "CLIENT", "OK"),
            ("serves_grpc.greet", "greetings.Greeter.greet", "SERVER", "OK"),
            ("greetings.Greeter.fail", "uses_grpc.by_dependency", "CLIENT", "ERROR"),
        ]
        spans = await services.traced.spans(["/traced", "traced.request", *(span[0] for span in expected)])
        for span in expected:
            self.assertIn(list(span), spans)

    async def test_chassis(self) -> None:
        """nameko-chassis' base class says what runs in the container, and where it is."""
        chassis = self.services.uses_chassis
        self.assertEqual(await chassis.say_hello(), "Hello from uses_chassis!")
        self.assertEqual(await chassis.seen(5), [2, ["5"], True])
        self.assertTrue(await chassis.responsive())
        self.assertIn("Revert with", await chassis.set_log_level("somebody", 10))
        self.assertIn("# TYPE", await chassis.metrics_page())

    async def test_worker_postmortem(self) -> None:
        """nameko-worker-postmortem has the debugger at an error that a method did not expect."""
        options = ("-p", "nameko_worker_postmortem", "--worker-postmortem", "-p", "no:cacheprovider")
        argv = [packages_env.python(), "-W", "ignore", "-m", "pytest", "-q", *OURS, *options]
        printed = await processes.succeed(processes.start(self, argv, cwd=f"{FOLDER}/postmortem", **ALONE))
        self.assertIn("1 passed", printed)


class Views(PackagesCase):
    """Packages for the views of other frameworks."""

    async def answers(self, framework: str) -> list[str]:
        """The answers of the views in ``views.py``."""
        argv = [packages_env.python(), "-W", "ignore", "views.py", framework, self.running.environ["AMQP_URI"]]
        printed = await processes.succeed(processes.start(self, argv, cwd=FOLDER, PYTHONPATH=ROOT))
        answers: list[str] = json.loads(printed)
        self.assertEqual(answers[:6], [f"hello {number}" for number in range(6)])
        self.assertEqual(answers[6], "RemoteError KeyError 'nobody'")
        return answers[7:]

    async def test_flask(self) -> None:
        """flask-nameko's pool serves views in several threads."""
        self.assertEqual(await self.answers("flask"), [])

    async def test_django(self) -> None:
        """django-nameko's pools have contexts of their own, a block's change ends with it, and events are told."""
        told = await self.answers("django")
        self.assertEqual(told, ["salut ada", "salut changed", "hello ada", "hello bob", "told"])
        self.assertEqual(await self.services.uses_views.next(), {"by": "django"})
