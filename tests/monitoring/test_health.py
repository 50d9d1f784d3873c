"""What a supervisor is answered: from the reasons to a page, and from a process's services to the reasons."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.services import ServicesCase
from txservices.amqp.connections import Connections
from txservices.containers import ServiceContainer
from txservices.extensions import DependencyProvider
from txservices.monitoring.health import PAGES, REASONS_MAX
from txservices.rpc import RpcProxy, rpc
from txservices.shared import SharedServices
from txservices.timer import timer


class Pages(SynchronousTestCase):
    """Each page, for some reasons."""

    def ready(self, *reasons: str) -> tuple[int, str]:
        page = PAGES["/readyz"](lambda: list(reasons), False)
        return page.status, page.body.decode()

    def test_healthy(self) -> None:
        """A process whose reactor turns is healthy, whatever else is wrong."""
        for as_json, body in ((False, b"ok\n"), (True, b'{"healthy": true}\n')):
            page = PAGES["/healthz"](lambda: ["shop: it is stopping"], as_json)
            self.assertEqual((page.status, page.body), (200, body))

    def test_ready(self) -> None:
        """Without a reason it is ready; with some it is not, and each is a line."""
        self.assertEqual(self.ready(), (200, "ready\n"))
        self.assertEqual(self.ready("one", "two"), (503, "one\ntwo\n"))

    def test_json(self) -> None:
        """The same as JSON."""
        for reasons in ([], ["one", "two"]):
            page = PAGES["/readyz"](lambda: reasons, True)  # noqa: B023  # called at once
            self.assertEqual((page.status, page.content_type), (503 if reasons else 200, "application/json"))
            self.assertEqual(json.loads(page.body), {"ready": not reasons, "reasons": reasons})

    def test_any_text(self) -> None:
        """A reason is one line, without secrets; too many are cut."""
        self.assertEqual(
            self.ready("a\nb \x1b[1m amqp://me:s3cret@host/"), (503, "a b \\x1b[1m amqp://me:********@host/\n")
        )
        status, body = self.ready(*map(str, range(REASONS_MAX + 5)))
        self.assertEqual((status, len(body.splitlines())), (503, REASONS_MAX + 1))
        self.assertTrue(body.endswith(f"{REASONS_MAX - 1}\nand 5 more reasons\n"))
        self.assertTrue(self.ready(*map(str, range(REASONS_MAX)))[1].endswith(f"\n{REASONS_MAX - 1}\n"))

    def test_metrics(self) -> None:
        """The metrics are a page in the text format of Prometheus."""
        page = PAGES["/metrics"](list, False)
        self.assertEqual(page.status, 200)
        self.assertIn(b"# TYPE process_cpu_seconds_total counter\n", page.body)
        self.assertTrue(page.content_type.startswith("text/plain; version="))

    def test_no_metrics(self) -> None:
        """Where prometheus-client is not installed the page says how it is installed."""
        with mock.patch.dict(sys.modules, {"prometheus_client": None}):
            sys.modules.pop("txservices.monitoring.metrics", None)
            page = PAGES["/metrics"](list, False)
        self.assertEqual(page.status, 404)
        self.assertRegex(page.body.decode(), r"pip install 'txservices\[metrics\]'.*\n$")


class Pool(DependencyProvider[Any]):
    """A dependency of a user's, which may be away."""

    trouble: Any = ()

    def not_ready(self) -> Any:
        if isinstance(self.trouble, Exception):
            raise self.trouble
        return self.trouble


class Shop:
    """Calls another service."""

    name = "shop"
    stock = RpcProxy("stock")
    pool = Pool()

    @rpc
    def sell(self) -> None: ...


async def replace_queue(connections: Connections, name: str) -> None:
    """Delete a queue, and declare it with other properties before anybody else can have it again."""
    channel = await (await connections.consuming.when_connected()).open_channel()
    deleted = channel.queue_delete(queue=name)
    await channel.queue_declare(queue=name, durable=False)
    await deleted


class Ticks:
    """Needs no broker."""

    name = "ticks"

    @timer(interval=100)
    def tick(self) -> None: ...


class Services(ServicesCase):
    """The reasons that the services of a process have."""

    async def test_life(self) -> None:
        """A service is ready from its start to the beginning of its stop."""
        container = self.stage.container(Shop)
        shared = container.shared
        self.assertEqual(container.not_ready(), ["shop: it has not begun to start"])
        starting = container.start()
        self.assertEqual(shared.not_ready()[0], "shop: it is starting")
        await starting
        self.assertEqual(shared.not_ready(), [])
        stopping = container.stop()
        self.assertEqual(container.not_ready(), ["shop: it is stopping"])
        await stopping
        self.assertEqual(container.not_ready(), ["shop: it has ended"])

    async def test_timers_only(self) -> None:
        """A service of timers is ready when it has started: it needs no broker."""
        shared = SharedServices()
        container = ServiceContainer(Ticks, {}, shared)
        self.addCleanup(container.stop)
        await container.start()
        self.assertEqual(shared.not_ready(), [])

    async def test_killed(self) -> None:
        """A service that is killed is not ready, and so is its process."""
        shop, ticks = await self.start(Shop, Ticks)
        killing = shop.kill()
        self.assertEqual([line for line in ticks.shared.not_ready() if "shop" in line], shop.not_ready())
        await killing

    async def test_queue_that_is_not_consumed(self) -> None:
        """A queue that can't be consumed is named, with its service and the broker's reason."""
        [shop] = await self.start(Shop)
        told = self.logged("queue rpc-shop can't be consumed")
        await replace_queue(self.stage.connections(), "rpc-shop")
        await told.wait()
        [line] = shop.shared.not_ready()
        self.assertRegex(line, "^shop: not consumed: queue rpc-shop: .*durable")

    async def test_of_a_user(self) -> None:
        """An extension of somebody's may have reasons of its own, and one that raises an error is a reason."""
        [shop] = await self.start(Shop)
        [pool] = [each for each in shop.dependencies if isinstance(each, Pool)]
        for trouble in (["the database is away"], "the database is away"):
            pool.trouble = trouble
            self.assertEqual(shop.not_ready(), ["shop: the database is away"])
        pool.trouble = ValueError("oh")
        [line] = shop.not_ready()
        self.assertRegex(
            line, r"^shop: <Pool( \[shop\.\w+\])? at 0x\w+> can't say whether it is ready: ValueError\('oh'\)$"
        )
