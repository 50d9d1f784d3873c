"""HTTP's own workers: slow calls do not make requests late, and what can't be worked on is answered 503 in time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from tests.services import ServicesCase
from txservices.exceptions import ConfigurationError
from txservices.rpc import rpc
from txservices.testing.waiting import Heard
from txservices.web import pool
from txservices.web.handlers import http
from txservices.web.pool import REQUEST_WAIT_MAX, RETRY_AFTER

began = Heard()


class Web:
    name = "web"

    @http("GET", "/slow")
    async def slow(self, request: Any) -> str:
        await wait()
        return "slow"

    @http("GET", "/limited", max_workers=1)
    async def limited(self, request: Any) -> str:
        await wait()
        return "limited"

    @http("GET", "/alive")
    def alive(self, request: Any) -> str:
        return "alive"

    @rpc
    async def call(self) -> str:
        await wait()
        return "called"


def wait() -> Deferred[None]:
    waiting: Deferred[None] = Deferred()
    began(waiting)
    return waiting


class Pool(ServicesCase):
    """The workers of one service."""

    def setUp(self) -> None:
        super().setUp()
        began.things.clear()

    async def serve(self, **config: Any) -> Any:
        """The service, with a clock of the test's own for requests that wait."""
        (container,) = await self.start(Web, **config)
        self.clock = Clock()
        queue = container.entrypoints[0].server.queue
        queue.clock = self.clock
        return container

    def get(self, url: str) -> Deferred[tuple[int, str, str | None]]:
        async def asked() -> tuple[int, str, str | None]:
            answer = await self.web_session().get(url)
            after = answer.headers.getRawHeaders("retry-after")
            return answer.code, await answer.text(), after and after[0]

        return Deferred.fromCoroutine(asked())

    async def test_slow_calls(self) -> None:
        """Calls that take all workers of the service make no request wait, and requests make no call wait."""
        await self.serve(max_workers=1, WEB_MAX_WORKERS=2)
        cluster = await self.cluster()
        calls = [cluster.web.call() for _ in range(3)]
        (first,) = await began.wait(1)
        slow = self.get("/slow")
        await began.wait(2)
        self.assertEqual((await self.get("/alive"))[1], "alive")
        first.callback(None)
        second = (await began.wait(3))[2]  # the next call begins, while a request is under way
        second.callback(None)
        began.things[1].callback(None)
        (await began.wait(4))[3].callback(None)
        self.assertEqual((await slow)[1], "slow")
        self.assertEqual(await gatherResults(calls), ["called"] * 3)

    async def test_slow_requests(self) -> None:
        """Requests that take all of HTTP's workers hold up no call; further requests wait, and begin in their turn."""
        container = await self.serve(max_workers=1, WEB_MAX_WORKERS=2)
        cluster = await self.cluster()
        slow = [self.get("/slow") for _ in range(3)]
        await began.wait(2)
        alive = self.get("/alive")
        call = cluster.web.call()
        (await began.wait(3))[2].callback(None)
        self.assertEqual(await call, "called")
        self.assertNoResult(alive)
        self.assertEqual((container.workers.under_way, container.workers.waiting), (2, 2))
        began.things[0].callback(None)
        await began.wait(4)
        began.things[1].callback(None)
        self.assertEqual((await alive)[1], "alive")
        began.things[3].callback(None)
        self.assertEqual([each[1] for each in await gatherResults(slow)], ["slow"] * 3)
        self.assertEqual((container.workers.under_way, container.workers.running, container.workers.waiting), (0, 0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_limit_of_its_own(self) -> None:
        """A method with a limit of its own waits for that and holds up no other; it can't have more than all."""
        container = await self.serve(WEB_MAX_WORKERS=2)
        limited = [self.get("/limited") for _ in range(2)]
        await began.wait(1)
        self.assertEqual((await self.get("/alive"))[1], "alive")
        slow = self.get("/slow")
        await began.wait(2)
        began.things[0].callback(None)
        await began.wait(3)  # the second limited one
        alive = self.get("/alive")
        self.assertNoResult(alive)
        for each in began.things[1:]:
            each.callback(None)
        self.assertEqual([each[1] for each in await gatherResults([*limited, slow, alive])],
                         ["limited", "limited", "slow", "alive"])  # fmt: skip
        self.assertEqual([each.full for each in container.entrypoints], [False] * 4)
        with self.assertRaisesRegex(ConfigurationError, "web.much: max_workers: 3 is no whole number from 1 to 2"):
            self.container(type("Much", (Web,), {"much": http("GET", "/m", max_workers=3)(lambda self, request: "")}),
                           WEB_MAX_WORKERS=2)  # fmt: skip

    async def test_time(self) -> None:
        """A request that has waited for too long is answered 503 with Retry-After, its worker never begins, and once
        in a while the log says so."""
        container = await self.serve(WEB_MAX_WORKERS=1)
        slow = self.get("/slow")
        await began.wait(1)
        late = [self.get("/slow") for _ in range(2)]
        while container.workers.waiting < 2:
            await self.turn()
        self.clock.advance(REQUEST_WAIT_MAX - 0.1)
        self.assertNoResult(late[0])
        with capturedLogs() as logged:
            self.clock.advance(0.1)
        answers = await gatherResults(late)
        self.assertEqual(answers, [(503, "Error: all workers are taken, try again\n", str(RETRY_AFTER))] * 2)
        lines = [formatEvent(each) for each in logged if "WEB_MAX_WORKERS" in formatEvent(each)]
        self.assertEqual(len(lines), 1)
        self.assertIn("all 1 workers of web over HTTP", lines[0])
        self.assertEqual(container.workers.waiting, 0)
        began.things[0].callback(None)
        self.assertEqual((await slow)[1], "slow")
        self.assertEqual(len(began.things), 1)

    async def test_number(self) -> None:
        """Requests beyond those that may wait are answered 503 at once."""
        self.patch(pool, "REQUESTS_WAITING_MAX", 1)
        container = await self.serve(WEB_MAX_WORKERS=1)
        first = self.get("/slow")
        await began.wait(1)
        second = self.get("/slow")
        while container.workers.waiting < 1:
            await self.turn()
        self.assertEqual((await self.get("/alive"))[0], 503)
        began.things[0].callback(None)
        (await began.wait(2))[1].callback(None)
        self.assertEqual([each[0] for each in await gatherResults([first, second])], [200, 200])

    async def test_client_that_leaves(self) -> None:
        """A request whose client leaves while it waits is forgotten."""
        container = await self.serve(WEB_MAX_WORKERS=1)
        slow = self.get("/slow")
        await began.wait(1)
        session = self.web_session()
        left = session.get("/slow")
        while container.workers.waiting < 1:
            await self.turn()
        await session.abort()
        await self.assertFailure(left, Exception)
        self.assertEqual((container.workers.waiting, self.clock.getDelayedCalls()), (0, []))
        began.things[0].callback(None)
        self.assertEqual((await slow)[0], 200)

    async def test_stop(self) -> None:
        """A stop waits for requests that run and that wait, and a kill ends them with 503."""
        container = await self.serve(WEB_MAX_WORKERS=1)
        asked = [self.get("/slow") for _ in range(2)]
        await began.wait(1)
        while container.workers.waiting < 1:
            await self.turn()
        stopped = container.stop()
        began.things[0].callback(None)
        (await began.wait(2))[1].callback(None)
        await stopped
        self.assertEqual([each[0] for each in await gatherResults(asked)], [200, 200])

    async def test_kill(self) -> None:
        """A kill answers 503 to requests that run and that wait."""
        container = await self.serve(WEB_MAX_WORKERS=1)
        asked = [self.get("/slow") for _ in range(2)]
        await began.wait(1)
        while container.workers.waiting < 1:
            await self.turn()
        await container.kill()
        self.assertEqual([each[0] for each in await gatherResults(asked)], [503, 503])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def turn(self) -> Deferred[None]:
        """A turn of the reactor."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        return deferLater(reactor, 0)
