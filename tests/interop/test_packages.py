"""nameko's extension packages, the real ones from PyPI, in services that run with ``--nameko``."""

from __future__ import annotations

import logging
import os
import shutil

import treq
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests import processes, rabbitmq
from tests.interop import packages_env
from tests.interop.packages_case import CONFIG, FOLDER, PackagesCase
from txservices.exceptions import MethodNotFound, RemoteError


class Databases(PackagesCase):
    """nameko-sqlalchemy."""

    async def test_sqlalchemy(self) -> None:
        """A block's session commits or rolls back, a worker's is its own and is closed, and a lost one tries again."""
        accounts = self.services.uses_sqlalchemy
        await accounts.create()
        await gatherResults([accounts.open(owner, 10) for owner in ("ann", "bob")])
        await accounts.move("ann", "bob", 3)
        await self.assertFailure(accounts.move("ann", "nobody", 3), RemoteError)
        self.assertEqual(await accounts.forget_to_commit("eve"), 3)
        self.assertEqual(await accounts.balances(), {"ann": 7, "bob": 13})
        self.assertEqual(await accounts.unlucky(2), 3)

    async def test_sqlalchemy_fixtures(self) -> None:
        """A suite that uses the package's fixtures for pytest passes with ``pytest --nameko``."""
        options = ("-q", "-p", "no:cacheprovider", "-p", "txservices_nameko", "--nameko")
        uri = self.running.environ["AMQP_URI"]
        argv = [packages_env.python(), "-m", "pytest", *options, "--amqp-uri", uri, "suite.py"]
        printed = await processes.succeed(processes.start(self, argv, cwd=FOLDER, PYTHONPATH=processes.ROOT))
        self.assertRegex(printed, r"\b4 passed")


class Redis(PackagesCase):
    """nameko-redis and nameko-rediskn, with a Redis."""

    if shutil.which("redis-server") is None and not os.environ.get("TXSERVICES_NO_SKIPS"):
        skip = "no redis-server on this machine: apt-get install redis-server"

    async def test_redis(self) -> None:
        """What one worker puts into Redis another gets, as text."""
        cache = self.services.uses_redis
        await cache.put("a", "ä")
        self.assertEqual(await cache.get("a"), "ä")
        await cache.put("a", "b", 100)
        self.assertEqual([await cache.drop("a"), await cache.get("a")], [1, None])

    async def test_rediskn(self) -> None:
        """A worker runs for each change of a key that the pattern matches, and for the events of any key."""
        watched = self.services.uses_rediskn
        self.assertEqual(await watched.wait_until_subscribed(), ["__keyevent@1__:del", "__keyspace@1__:watched/*"])
        await watched.put("not-watched")
        await watched.put("watched/a")
        self.assertEqual(await watched.next_event(), ["__keyspace@1__:watched/a", "set"])
        await watched.drop("not-watched")
        self.assertEqual(await watched.next_event(), ["__keyevent@1__:del", "not-watched"])

    async def test_stop(self) -> None:
        """Services stop in order, while a package's thread waits for a socket or for the next minute."""
        port = f"WEB_SERVER_ADDRESS=127.0.0.1:{rabbitmq.free_port()}"
        options = ("run", "--nameko", "--config", CONFIG, "--define", port)
        modules = ("uses_cron", "uses_rediskn", "uses_sqlalchemy")
        argv = [packages_env.python(), "-W", "ignore", "-m", "txservices", *options, *modules]
        environ = {**self.running.environ, "PYTHONPATH": processes.ROOT}
        process = processes.start(self, argv, cwd=FOLDER, **environ)
        await process.line("^running: ")
        await processes.stopped(process)


class Metrics(PackagesCase):
    """nameko-statsd and nameko-prometheus."""

    async def heard(self) -> str:
        packet: bytes = await deferToThread(self.running.metrics.recv, 1000)
        return packet.decode()

    async def test_statsd(self) -> None:
        """Counters and times go to statsd, under the names that the configuration begins."""
        shop = self.services.uses_statsd
        await shop.sell(3)
        self.assertEqual(await self.heard(), "shop.sold:3|c")
        self.assertEqual(await shop.deliver(), "delivered")
        self.assertRegex(await self.heard(), r"^shop\.delivery:\d+\.\d+\|ms$")

    async def test_prometheus(self) -> None:
        """Calls, events and requests are counted and timed, and served with the service's own metrics."""
        await self.services.uses_prometheus.sell(2)
        web = f"http://{self.running.environ['WEB_SERVER_ADDRESS']}"
        response = await treq.get(f"{web}/missing/tin", persistent=False)
        self.assertEqual((response.code, await response.text()), (404, "no tin"))
        missing = {
            "things_sold_total 2.0",
            'uses_prometheus_rpc_requests_total{method_name="sell"} 1.0',
            'uses_prometheus_rpc_request_latency_seconds_count{method_name="sell"} 1.0',
            'uses_prometheus_events_total{event_type="sold",source_service="uses_prometheus"} 1.0',
            'uses_prometheus_http_requests_total{endpoint="/missing/<thing>",http_method="GET",status_code="404"} 1.0',
            "uses_prometheus_service_max_workers 10.0",
        }
        while missing:  # a worker is counted when it has answered
            response = await treq.get(f"{web}/metrics", headers={"Accept": "text/plain"}, persistent=False)
            lines = (await response.text()).splitlines()
            missing.difference_update(lines)
        (running,) = [line for line in lines if line.startswith("uses_prometheus_service_running_workers ")]
        self.assertGreaterEqual(float(running.partition(" ")[2]), 1)


class Logs(PackagesCase):
    """nameko-tracer and nameko-structlog."""

    async def test_tracer(self) -> None:
        """Each worker is in the log as a request and as a response, with arguments hidden that are to be."""
        await self.services.uses_tracer.login("ann", password="secret")
        request, response = await self.services.traces.take(2)
        self.assertEqual(request["stage"], "request")
        self.assertEqual(request["call_args"], {"user": "ann", "password": "********"})
        self.assertEqual(response["response"], {"user": "ann"})
        self.assertEqual(
            [response[name] for name in ("service", "entrypoint_name", "entrypoint_type", "response_status")],
            ["uses_tracer", "login", "Rpc", "success"],
        )
        self.assertEqual(request["call_id"], response["call_id"])

        await self.assertFailure(self.services.uses_tracer.login("", password="secret"), RemoteError)
        _, failed = await self.services.traces.take(2)
        self.assertEqual(
            [failed[name] for name in ("response_status", "exception_type", "exception_args", "exception_expected")],
            ["error", "ValueError", ["no user"], True],
        )

    async def test_tracer_of_http(self) -> None:
        """A request of HTTP is in the log as what it is."""
        url = f"http://{self.running.environ['WEB_SERVER_ADDRESS']}/traced/3"
        response = await treq.post(url, b"body", headers={"X-Thing": "tin"}, persistent=False)
        self.assertEqual((response.code, await response.text()), (201, "made 3"))
        request, answer = await self.services.traces.take(2)
        seen = request["call_args"]
        self.assertEqual(
            [seen["number"], *(seen["request"][name] for name in ("url", "method", "data"))], [3, url, "POST", "body"]
        )
        self.assertEqual(seen["request"]["headers"]["x_thing"], "tin")
        self.assertEqual([answer["response"][name] for name in ("status_code", "data")], [201, "b'made 3'"])

    async def test_structlog(self) -> None:
        """A line has what the worker bound, the call id, and the configuration's own parameters."""
        line = await self.services.uses_structlog.order("tin")
        self.assertEqual(
            [line[name] for name in ("event", "thing", "level", "logger", "release")],
            ["ordered", "tin", "info", "uses_structlog", "1.2"],
        )
        self.assertRegex(line["entrypoint"], r"^uses_structlog\.order\.")


class Errors(PackagesCase):
    """nameko-sentry."""

    async def test_sentry(self) -> None:
        """Errors of workers arrive at Sentry, expected ones as warnings, those of HTTP with their request."""
        shop, sentry = self.services.uses_sentry, self.services.sentry
        await self.assertFailure(shop.sell("iron"), RemoteError)
        report = await sentry.take()
        self.assertEqual([report["level"], report["logger"]], [logging.ERROR, "uses_sentry.sell"])
        self.assertRegex(report["message"], r"^Unhandled exception in call uses_sentry\.sell\..*: ValueError 'iron'$")
        self.assertEqual(report["exception"]["values"][0]["type"], "ValueError")
        self.assertEqual(report["tags"]["method_name"], "sell")

        await self.assertFailure(shop.sell("tin"), RemoteError)
        self.assertEqual((await sentry.take())["level"], logging.WARNING)

        await shop.tell("by hand")
        self.assertEqual((await sentry.take())["message"], "by hand")

        response = await treq.get(f"http://{self.running.environ['WEB_SERVER_ADDRESS']}/broken?a=1", persistent=False)
        self.assertEqual(response.code, 500)
        request = (await sentry.take())["request"]
        self.assertEqual([request["method"], request["query_string"]], ["GET", "a=1"])


class Calls(PackagesCase):
    """nameko-cachetools."""

    async def test_cachetools(self) -> None:
        """A cached answer is given without a call, or when the call fails."""
        shop, prices = self.services.uses_cachetools, self.services.prices
        self.assertEqual(await shop.first("tin"), ["tin", 1])
        self.assertEqual(await shop.first("tin"), ["tin", 1])
        self.assertEqual(await shop.first("iron"), ["iron", 2])
        self.assertEqual(await shop.last_known("tin"), ["tin", 3])
        self.assertEqual(await shop.last_known("tin"), ["tin", 4])
        await prices.fail()
        self.assertEqual(await shop.last_known("tin"), ["tin", 4])
        await self.assertFailure(shop.last_known("iron"), RemoteError)


class Retries(PackagesCase):
    """nameko-amqp-retry."""

    async def test_amqp_retry(self) -> None:
        """A call that backs off is answered later, and one that does so too often gets the error of that."""
        retries = self.services.uses_amqp_retry
        self.assertEqual(await retries.third_time("tin"), ["tin", 3])
        self.assertEqual(await retries.declared("iron"), ["iron", 3])
        if rabbitmq.node().ctl_now("version").startswith("3"):
            error = await self.assertFailure(retries.never("tin"), RemoteError)
            self.assertEqual(error.exc_type, "Expired")
            self.assertRegex(str(error), "Backoff aborted after '2' retries")
        else:  # RabbitMQ 4 begins x-death anew for what a client publishes, and the package counts by that
            self.assertIsNone(await retries.never("tin"))
        error = await self.assertFailure(retries.missing(), MethodNotFound)

    async def test_amqp_retry_of_events(self) -> None:
        """An event and a message that back off are handled again, their worker's stack says so."""
        retries = self.services.uses_amqp_retry
        for how in ("dispatch", "publish"):
            await getattr(retries, how)("tin")
            seen = [await retries.next_seen() for _ in range(2)]
            self.assertEqual([(what, data) for what, data, _ in seen], [(how, "tin")] * 2)
            self.assertNotIn("backoff", str(seen[0]))
            self.assertRegex(seen[1][2][-2], r"\.backoff$")


class Times(PackagesCase):
    """nameko-cron."""

    async def test_cron(self) -> None:
        """Methods run when their lines say so."""
        seen: set[str] = set()
        while seen != {"waits", "skips"}:
            seen.add(await self.services.uses_cron.take())
