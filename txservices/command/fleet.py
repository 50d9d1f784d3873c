"""`txservices services`, `describe`, `ping`, `tail` and `top`: ask the processes on a broker, and print what they say.

``monitoring.fleet`` asks, ``tables`` makes lines of the answers.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from txservices.amqp.connections import Connections
from txservices.command import exits
from txservices.command.client import as_client
from txservices.command.options import Given, configured
from txservices.command.tables import (
    as_object,
    counted,
    described,
    failure_lines,
    grouped,
    happened_lines,
    seconds,
    table_of,
    whereabouts,
)
from txservices.exceptions import CommandError
from txservices.monitoring.answers import Answer, Tailed
from txservices.monitoring.fleet import Answers, Fleet
from txservices.page.depths import Depths, queues_of
from txservices.utils import default_reactor
from txservices.utils.printable import in_one_line, printable
from txservices.utils.waiting import Waiters

MEASURED = 1.0  # seconds that processes count before their rates are shown
TOP_EVERY = 2.0  # seconds between two tables of `top`
GREETED = 2.0  # seconds after which `tail` says that no process tells anything
LINES_AROUND = 4  # lines of a terminal that are no services of `top`'s table
INTERRUPTED = "interrupted: nothing was changed"
NOBODY = (
    "no process answers on this broker: see whether services run there. A process does not answer with FLEET: false,"
    " or if its user may not declare a queue (its log says so)"
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")


class Interrupt:
    """A signal that ends a command which would go on. The command ends in order then, with success."""

    def __init__(self) -> None:
        self.clock = default_reactor()
        self.now = False
        self.waiters: Waiters[None] = Waiters()
        self.ended: Deferred[None] = Deferred()

    def begin(self) -> Deferred[None]:
        self.now = True
        self.waiters.fire(None)
        return self.ended

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for so many seconds, or until the signal comes; without a number as long as that takes."""
        if not self.now:
            waiting = self.waiters.wait()
            if seconds is not None:
                waiting.addTimeout(seconds, self.clock)
            await waiting.addErrback(lambda failure: failure.trap(DeferredTimeout) and None)


@asynccontextmanager
async def interruptible() -> Any:
    """An ``Interrupt`` for the time of a block."""
    interrupt = Interrupt()
    trigger = interrupt.clock.addSystemEventTrigger("before", "shutdown", interrupt.begin)
    try:
        yield interrupt
    finally:
        if not interrupt.now:
            interrupt.clock.removeSystemEventTrigger(trigger)
        # in a later turn: now the reactor would close the connections, and each would be told as lost
        interrupt.clock.callLater(0, interrupt.ended.callback, None)


def on_fleet(work: Callable[[Fleet], Awaitable[None]], given: Given) -> None:
    """Run a command that asks the fleet."""

    async def main(config: dict[str, Any]) -> None:
        connections = Connections.from_config(config, default_reactor())
        fleet = Fleet(connections)
        connections.startService()
        try:
            await fleet.start()
            await work(fleet)
        finally:
            await connections.stopService()

    as_client(main, given, INTERRUPTED)


def tell_unreadable(told: Answers) -> None:
    for line in told.unreadable:
        click.echo(in_one_line(line), err=True)


async def measured(fleet: Fleet, *want: str) -> list[Answer]:
    """What all processes answer, once they have counted for long enough to tell rates."""
    told = await fleet.ask("counts", *want)
    if any(each.get("counting", 0.0) < MEASURED for each in told.answers):
        await Interrupt().wait(MEASURED)
        told = await fleet.ask("counts", *want)
    tell_unreadable(told)
    if not told.answers:
        click.echo(NOBODY, err=True)
        raise SystemExit(exits.CRASH)
    return told.answers


@click.command()
@configured
@json_option
def services(given: Given, as_json: bool) -> None:
    """Print the services that run on the broker: instances, methods, calls a second, times and errors.

    SINCE is when the newest instance has begun.
    """

    async def work(fleet: Fleet) -> None:
        groups = grouped(await measured(fleet, "services"))
        lines = [json.dumps(as_object(each)) for each in groups] if as_json else table_of(groups)
        click.echo("\n".join(lines))

    on_fleet(work, given)


@click.command()
@click.argument("service")
@configured
@click.option("--failures", type=click.IntRange(0, 100), default=3, show_default=True, help="So many of the latest.")
def describe(service: str, given: Given, failures: int) -> None:
    """Print all about a service: instances, methods, events, callers, whom it calls, queues, and what failed."""

    async def work(fleet: Fleet) -> None:
        answers = await measured(fleet, "services")
        group = next((each for each in grouped(answers) if each.name == service), None)
        if group is None:
            raise no_such(service, [each.name for each in grouped(answers)])
        click.echo("\n".join(described(group, answers)))
        consumed = queues_of((service, method) for method in group.methods.values())
        found = await Depths(fleet.connections).look_once(consumed)
        if found:
            click.echo("\nQueues")
        for name, depth in sorted(found.items(), key=lambda item: (-item[1].messages, item[0])):
            numbers = f"{counted(depth.messages, 'message')}, {counted(depth.consumers, 'consumer')}"
            click.echo(f"  {in_one_line(name)}: {numbers}")
        if failures:
            told = await fleet.ask("failures", services=[service], failures=failures)
            failed = [(each, answer["process"]) for answer in told.answers for each in answer.get("failures", ())]
            failed = [(each, process) for each, process in failed if each["service"] == service]
            failed.sort(key=lambda pair: pair[0]["at"], reverse=True)
            if failed:
                click.echo("\nLatest failures")
            for each, process in failed[:failures]:
                click.echo("\n".join(f"  {line}" for line in failure_lines(each, process)))

    on_fleet(work, given)


@click.command()
@click.argument("service")
@configured
@click.option("--count", type=click.IntRange(1, 1000), default=3, show_default=True, help="Round trips to each.")
def ping(service: str, given: Given, count: int) -> None:
    """Print how long each instance of a service takes to answer, by way of the broker."""

    async def work(fleet: Fleet) -> None:
        told = await fleet.ask(services=[service])
        tell_unreadable(told)
        if not told.answers:
            raise no_such(service, [each.name for each in grouped((await fleet.ask()).answers)])
        lost = 0
        for answer in told.answers:
            process = answer["process"]
            times = []
            for _ in range(count):
                began = fleet.clock.seconds()
                if (await fleet.ask(processes=[process["id"]])).answers:
                    times.append(fleet.clock.seconds() - began)
                    fleet.known[process["id"]] = process
                else:
                    lost += 1
            round_trips = ", ".join(map(seconds, times)) or "no answer"
            click.echo(f"{in_one_line(service)} on {whereabouts(process)}: {round_trips}")
        if lost:
            raise SystemExit(exits.CRASH)

    on_fleet(work, given)


@click.command()
@click.argument("target", default="", metavar="[SERVICE[.METHOD]]")
@configured
def tail(target: str, given: Given) -> None:
    """Print calls and events as they happen, until Ctrl-C.

    METHOD may be the type of an event. What is more than some hundred a second is counted, and not shown.
    """
    service, _, method = target.partition(".")

    async def work(fleet: Fleet) -> None:
        failed: list[BaseException] = []

        def told(tailed: Tailed) -> None:
            try:
                for line in happened_lines(tailed):
                    click.echo(line)
            except OSError as error:  # nobody reads what is printed
                failed.append(error)
                interrupt.begin()

        async with interruptible() as interrupt:
            tailing = fleet.tail(told, service, method)
            await interrupt.wait(GREETED)
            if not tailing.processes and not interrupt.now:
                click.echo(
                    f"nothing to tell yet: no process has {in_one_line(service)}" if service else NOBODY, err=True
                )
            await interrupt.wait()
            tailing.stop()
        if failed:
            raise failed[0]

    on_fleet(work, given)


@click.command()
@configured
def top(given: Given) -> None:
    """Show the table of services live, until Ctrl-C. Where that is no terminal, it is printed every two seconds."""
    live = sys.stdout.isatty()

    async def work(fleet: Fleet) -> None:
        async with interruptible() as interrupt:
            while not interrupt.now:
                told = await fleet.ask("services", "counts")
                lines = table_of(grouped(told.answers)) if told.answers else [NOBODY]
                if live:
                    lines = lines[: max(shutil.get_terminal_size().lines - LINES_AROUND, 2)]
                    click.clear()
                lines += [f"gone: {whereabouts(each)}, {', '.join(each['services'])}" for each in told.missing]
                click.echo("\n".join([*map(printable, [*lines, *told.unreadable]), ""]))
                await interrupt.wait(TOP_EVERY)

    on_fleet(work, given)


def no_such(service: str, names: list[str]) -> CommandError:
    there = f"there are {in_one_line(', '.join(names))}" if names else NOBODY
    return CommandError(f"no process has a service {in_one_line(service)!r}: {there}")
