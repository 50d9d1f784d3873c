"""`python -m benchmarks.late`: how late delayed messages come, by RabbitMQ's own clock.

Events are sent with delays, and their handler fails once with each and asks for the same delay again. RabbitMQ's plugin
`rabbitmq_tracing` notes, in milliseconds, when a message came to a delay queue and when it was given to the service.
docs/retries.md has the figures.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from tests import rabbitmq
from txservices.amqp.delays import DELAY_QUEUE
from txservices.events import event_handler
from txservices.retry import Retry
from txservices.runners import ServiceRunner
from txservices.standalone.events import event_dispatcher

DELAYS = (0.05, 0.2, 0.5, 1, 2, 7.3, 10, 30)  # seconds
NUMBER = 20  # of events with each
WRITTEN = 2.0  # seconds until the plugin has written everything
SENT, AGAIN = "sent with a delay", "failed, and tried again"


def node() -> tuple[rabbitmq.Node, str]:
    """A RabbitMQ with the plugin, which has a port for the management, and where its traces are."""
    management = f'[{{port,{rabbitmq.free_port()}}},{{ip,"127.0.0.1"}}]'
    made = rabbitmq.Node("late", erlang=f"-rabbitmq_management tcp_config {management}")
    plugins = os.path.join(made.folder, "plugins")
    with open(plugins, "w", encoding="utf-8") as file:
        file.write("[rabbitmq_tracing].")
    made.environ["RABBITMQ_ENABLED_PLUGINS_FILE"] = plugins
    return made.start(), os.path.join(made.folder, "traces")


async def work(uri: str, number: int) -> None:
    """Send all, and wait until all have been handled."""
    left = set(range(number * len(DELAYS)))
    failed: set[int] = set()
    handled: Deferred[None] = Deferred()

    class Listener:
        name = "listener"

        @event_handler("benchmark", "late")
        def late(self, event: dict[str, Any]) -> None:
            if event["number"] not in failed:
                failed.add(event["number"])
                raise Retry(after=event["delay"])
            left.discard(event["number"])
            if not left and not handled.called:
                handled.callback(None)

    # A message whose copy is the first in a new delay queue keeps its place for a second: here nearly all are.
    runner = ServiceRunner({"AMQP_URI": uri, "prefetch_count": 10 * number * len(DELAYS)})
    runner.add_service(Listener)
    await runner.start()
    async with event_dispatcher({"AMQP_URI": uri}) as dispatch:
        sent = []
        for each in sorted(left):
            delay = DELAYS[each % len(DELAYS)]
            sent.append(dispatch("benchmark", "late", {"number": each, "delay": delay}, delay=delay))
        await gatherResults(sent)
        await handled
    await runner.stop()


def measured(path: str) -> Iterator[tuple[str, float, float]]:
    """Of each message in a trace: how it was delayed, for how long it should have been, and by how much it was late."""
    came: dict[str, datetime] = {}  # to a delay queue, by id
    with open(path, encoding="utf-8") as lines:
        for event in map(json.loads, lines):
            at, message_id = datetime.fromisoformat(event["timestamp"]), event["properties"].get("message_id")
            if event["type"] == "published" and event["routing_keys"][0].startswith(DELAY_QUEUE):
                came[message_id] = at
            elif event["type"] == "received" and message_id in came:
                delay = json.loads(base64.b64decode(event["payload"]))["delay"]
                how = SENT if "txservices-attempt" not in event["properties"]["headers"] else AGAIN
                yield how, delay, (at - came.pop(message_id)).total_seconds() - delay


def table(rows: list[tuple[str, float, float]]) -> str:
    lines = ["| delay, s | | least late, s | median | most | allowed |", "|--|--|--|--|--|--|"]
    for delay in DELAYS:
        for how in (SENT, AGAIN):
            late = sorted(each for kind, asked, each in rows if (kind, asked) == (how, delay))
            if late:
                figures = f"{late[0]:.3f} | {statistics.median(late):.3f} | {late[-1]:.3f} | {0.1 * delay + 0.2:.3f}"
                lines.append(f"| {delay:g} | {how}, {len(late)} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.late", description="how late delayed messages come")
    parser.add_argument("--number", type=int, default=NUMBER, help="of events with each delay")
    number = parser.parse_args().number
    broker, traces = node()
    vhost = broker.new_vhost()
    broker.ctl_now("eval", f'application:set_env(rabbitmq_tracing, directory, "{traces}").')
    trace = '[{format, <<"json">>}, {pattern, <<"#">>}]'
    broker.ctl_now("eval", f'rabbit_tracing_traces:create(<<"{vhost}">>, <<"late">>, {trace}).')
    print(f"RabbitMQ {broker.ctl_now('version').strip()}", flush=True)

    async def run(reactor: Any) -> None:
        await work(broker.uri(vhost), number)
        await deferLater(reactor, WRITTEN)
        rows = list(measured(os.path.join(traces, "late.log")))
        print(table(rows), flush=True)
        off = [each for each in rows if abs(each[2]) > 0.1 * each[1] + 0.2]
        if off or len(rows) != 2 * number * len(DELAYS):
            sys.exit(f"{len(off)} of {len(rows)} are off by more than 10 % and 0.2 s: {off[:5]}")

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
