"""Row 31: three nodes with quorum queues, of which one dies, the leader dies, and two stop and come back.

The last in ``FAULTS_FULL`` only.
"""

from __future__ import annotations

import os
import re
import time
from functools import cache
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from tests import rabbitmq
from tests.faults.checker import CALL, EVENT
from tests.faults.load import LoadCase
from tests.faults.scene import FULL, until
from txservices.events import event_handler
from txservices.exceptions import ReplyQueueExpiredWithPendingReplies
from txservices.rpc import rpc

MOVED = 3  # seconds until all is at another node
RATE = 50  # events a second, and as many calls
SOME = 100 if FULL else 50  # of each, before and after what happens
NAME_ALL = "cluster_formation.peer_discovery_backend = classic_config\n"
NAME_ONE = "cluster_formation.classic_config.nodes.{} = {}\n"


@cache
def cluster() -> list[rabbitmq.Node]:
    """Three nodes that know each other, running: made once for all tests. Blocks for some 15 s."""
    nodes = [rabbitmq.Node(f"cluster{number}") for number in range(3)]
    path = os.path.join(rabbitmq.home().folder, "cluster.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(NAME_ALL + "".join(NAME_ONE.format(number, node.name) for number, node in enumerate(nodes, 1)))
    for node in nodes:
        node.environ["RABBITMQ_CONFIG_FILE"] = path.removesuffix(".conf")
        node.spawn()
    deadline = time.monotonic() + rabbitmq.START_TIMEOUT
    for node in nodes:
        while node.starting(deadline):
            time.sleep(rabbitmq.LOOK_AGAIN)
    return nodes


class Cluster(LoadCase):
    """A service and its callers know all three nodes. Its queues are quorum queues, as the configuration says."""

    timeout = 240

    def node(self) -> rabbitmq.Node:
        return cluster()[0]

    async def setUp(self) -> None:
        await super().setUp()
        self.nodes = cluster()
        self.config.update(self.knowing(*self.nodes))

    def knowing(self, *nodes: rabbitmq.Node) -> dict[str, Any]:
        """A configuration for connecting to the first of these, as long as it can be reached."""
        return {
            "AMQP_URI": [node.uri(self.vhost) for node in nodes],
            "HEARTBEAT": 5,
            "QUEUE_TYPE": "quorum",
            "RPC_TIMEOUT": 60,
            "PUBLISH_TIMEOUT": 60,
        }

    async def worker(self, *nodes: rabbitmq.Node) -> None:
        """The service, at the first of these, where the leaders of its queues are then."""
        checker = self.checker

        class Worker:
            name = "worker"

            @rpc
            def work(self, number: int) -> int:
                checker.note(CALL, "handled", number)
                return number

            @event_handler("source", "told")
            def told(self, number: int) -> None:
                checker.note(EVENT, "handled", number)

        await self.start(Worker, **self.knowing(*nodes))
        types, leaders = await self.listed("type"), await self.listed("leader")
        for queue in ("rpc-worker", "evt-source-told--worker.told"):
            self.assertEqual((types[queue], leaders[queue]), ("quorum", nodes[0].name))

    async def listed(self, what: str) -> dict[str, str]:
        """One column of rabbitmqctl's table, for each queue."""
        running = next(node for node in self.nodes if node.running)
        text = await running.ctl("list_queues", "-p", self.vhost, "name", what)
        return dict(re.findall(r"^(\S+)\t(\S+)$", text, re.MULTILINE))

    async def loses(self, *victims: rabbitmq.Node, stop: bool = False) -> tuple[float, set[str]]:
        """Under load: the loss, what there is meanwhile, the return. No event fails; gives the seconds until a call was
        answered again that was made after the loss, and the errors of calls."""
        load = await self.load(RATE)
        await load.passed(SOME)
        for victim in victims:
            victim.stop() if stop else victim.kill()
        lost_at, sent = reactor.seconds(), load.number
        telling = Deferred.fromCoroutine(load.passed(SOME))
        if len(victims) == 1:
            await until(lambda: load.latest > sent, 30)
        took = reactor.seconds() - lost_at
        await telling
        await gatherResults([victim.restart() for victim in victims])
        await load.passed(SOME)
        await load.finish()
        report = self.checker.check()
        print(f"\n{self.id()}: {report} {dict(self.checker.errors)}, answers after {took:.1f} s")
        self.assertEqual([number for kind, number in self.checker.steps()["failed"] if kind == EVENT], [])
        return took, set(self.checker.errors)

    async def test_row_31_connected_node_killed(self) -> None:
        """All is at another node within three seconds, and nothing is lost. Of calls those fail whose replies were to
        come to a queue of that node."""
        await self.worker(*self.nodes)
        took, errors = await self.loses(self.nodes[0])
        self.assertLess(took, MOVED)
        self.assertLessEqual(errors, {ReplyQueueExpiredWithPendingReplies.__name__})

    async def test_row_31_leader_killed(self) -> None:
        """Another becomes the leader; nothing is lost, and for callers who are elsewhere no call fails."""
        first, *others = self.nodes
        await self.worker(*others, first)
        took, errors = await self.loses(others[0])
        self.assertLess(took, MOVED)
        self.assertEqual(errors, set())

    async def test_row_31_majority_stopped(self) -> None:
        """With two of three stopped publishes wait; when they are back all is confirmed and handled."""
        await self.worker(*self.nodes)
        _, errors = await self.loses(*self.nodes[1:], stop=True)
        self.assertEqual(errors, set())

    if not FULL:
        del test_row_31_majority_stopped  # not skipped: where a skipped test counts as failed there must not be one
