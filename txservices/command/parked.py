"""`txservices parked`: what failed for good is looked at, replayed and discarded.

The work is done by ``retry.parked``. Here is what is typed for it and what is printed of it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
from twisted.internet.defer import Deferred

from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message
from txservices.command import exits
from txservices.command.client import as_client
from txservices.command.options import Given, configured
from txservices.exceptions import CommandError
from txservices.retry import marks
from txservices.retry.lines import line_of
from txservices.retry.parked import NoParkingQueue, Parked, Selection, Summary, Tally, parking_name
from txservices.utils import default_reactor
from txservices.utils.printable import in_one_line, printable

INTERRUPTED = "interrupted: nothing was done"
KINDS_SHOWN = 10  # reasons that are told, those of most messages first

Operate = Callable[[Parked], Awaitable[int]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
ids_option = click.option("--id", "ids", metavar="ID", multiple=True, help="Of the message with this id.")
reasons_option = click.option(
    "--reason", "reasons", metavar="REASON", multiple=True, help="Of messages that are parked for it, as in `list`."
)
all_option = click.option("--all", "all_of_it", is_flag=True, help="Of all messages.")


@click.group()
def parked() -> None:
    """Look at messages whose handlers failed for good; replay or discard them.

    QUEUE is the queue that they failed in, as rpc-shop, or its parking queue, rpc-shop.parked.
    """


@parked.command("list")
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@configured
@json_option
def list_queues(queues: tuple[str, ...], given: Given, as_json: bool) -> None:
    """Print how many messages each queue has parked, since when, and why."""

    async def operate(parked: Parked) -> int:
        status = 0
        for queue in dict.fromkeys(map(parking_name, queues)):
            tally = Tally()
            try:
                with progress(tally, queue):
                    summary = await parked.summary(queue, tally)
            except NoParkingQueue as error:
                exits.tell(error)
                status = exits.MISTAKE
                continue
            if parked.cancelled:
                break
            click.echo(json.dumps(as_object(summary)) if as_json else in_words(summary))
        return status

    on_broker(operate, given)


@parked.command()
@click.argument("queue")
@configured
@ids_option
@reasons_option
@json_option
def show(queue: str, given: Given, ids: tuple[str, ...], reasons: tuple[str, ...], as_json: bool) -> None:
    """Print a line a message, or with --id all that is known of one."""
    queue = parking_name(queue)
    selection = Selection(frozenset(ids), frozenset(reasons))
    text_of = partial(line_of, queue=queue) if as_json else whole if ids else brief

    async def operate(parked: Parked) -> int:
        tally = Tally()
        await parked.look(queue, selection, lambda message: click.echo(text_of(message)), tally)
        check_found(parked, queue, selection, tally)
        tell_unread(parked, queue, tally)
        return 0

    on_broker(operate, given)


@parked.command()
@click.argument("queue")
@configured
@ids_option
@reasons_option
@all_option
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="So many messages in a second.")
@json_option
def replay(
    queue: str,
    given: Given,
    ids: tuple[str, ...],
    reasons: tuple[str, ...],
    all_of_it: bool,
    rate: float | None,
    as_json: bool,
) -> None:
    """Have messages handled again, by the queue that they failed in; their attempts are counted anew.

    A message leaves the parking queue when the broker has confirmed it in the other one.
    """
    selection = selected(ids, reasons, all_of_it)
    on_broker(partial(change, parking_name(queue), selection, "replayed", as_json, rate=rate), given)


@parked.command()
@click.argument("queue")
@configured
@ids_option
@reasons_option
@all_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def discard(
    queue: str,
    given: Given,
    ids: tuple[str, ...],
    reasons: tuple[str, ...],
    all_of_it: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete messages for good."""
    queue = parking_name(queue)
    selection = selected(ids, reasons, all_of_it)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError(f"messages of {queue} would be deleted: give --yes")
        click.confirm(f"Delete messages of {queue} for good?", abort=True, err=True)
    on_broker(partial(change, queue, selection, "discarded", as_json), given)


def selected(ids: Iterable[str], reasons: Iterable[str], all_of_it: bool) -> Selection:
    """The messages that the options mean. ``CommandError`` if they name none, or all and some."""
    selection = Selection(frozenset(ids), frozenset(reasons))
    if bool(selection.ids or selection.reasons) == all_of_it:
        raise CommandError("say which messages: --id, --reason, or --all")
    return selection


# The work -------------------------------------------------------------------------------------------------------------


def on_broker(operate: Operate, given: Given) -> None:
    """Run an operation, and exit with the status that it gives. A signal ends it in order."""

    async def work(config: dict[str, Any]) -> None:
        reactor = default_reactor()
        connections = Connections.from_config(config, reactor)
        parked = Parked(connections, config)
        ended: Deferred[None] = Deferred()
        begun = True

        def stop() -> Deferred[None]:
            nonlocal begun
            parked.cancel()
            begun = connections.consuming.protocol is not None
            if not begun:  # and perhaps it never would
                connections.stopService()
            return ended

        trigger = reactor.addSystemEventTrigger("before", "shutdown", stop)
        connections.startService()
        status = 0
        try:
            status = await operate(parked)
        except Exception:
            if begun:
                raise
            raise SystemExit from None
        finally:
            await connections.stopService()
            if not parked.cancelled:
                reactor.removeSystemEventTrigger(trigger)
            ended.callback(None)
        if parked.cancelled:
            raise SystemExit(exits.INTERRUPTED)
        if status:
            raise SystemExit(status)

    as_client(work, given, INTERRUPTED)


async def change(
    queue: str, selection: Selection, done: str, as_json: bool, parked: Parked, rate: float | None = None
) -> int:
    """Replay or discard, and tell how far it came, also if it fails."""
    tally = Tally()
    try:
        with progress(tally, queue):
            if done == "replayed":
                await parked.replay(queue, selection, tally, rate)
            else:
                await parked.discard(queue, selection, tally)
        check_found(parked, queue, selection, tally)
    except NoParkingQueue:
        raise
    except Exception:
        if tally.done or tally.stayed:
            click.echo(result(queue, tally, done, as_json))
            if done == "replayed" and tally.done:
                click.echo("The last of these may be in both queues now, with the same ids.", err=True)
        raise
    click.echo(result(queue, tally, done, as_json))
    tell_unread(parked, queue, tally)
    return exits.CRASH if tally.stayed or tally.unreadable else 0


def check_found(parked: Parked, queue: str, selection: Selection, tally: Tally) -> None:
    """``CommandError`` for ids that no message has."""
    missing = sorted(selection.ids - tally.ids)
    if missing and not parked.cancelled:
        raise CommandError(f"no message in {queue} has the id {', '.join(missing)}: see `txservices parked show`")


def tell_unread(parked: Parked, queue: str, tally: Tally) -> None:
    """Say what was not looked at, and why."""
    left = tally.there - tally.read
    if parked.cancelled:
        click.echo(f"interrupted: {left:,} of {tally.there:,} messages of {queue} were not looked at", err=True)
    elif left > 0:
        click.echo(f"{left:,} messages of {queue} were not looked at: too many stay before them", err=True)


@contextmanager
def progress(tally: Tally, label: str) -> Any:
    """Show on a terminal how far a walk has come."""
    if not sys.stderr.isatty():
        yield
        return
    with click.progressbar(length=1, label=in_one_line(label), file=sys.stderr) as bar:

        def show() -> None:
            bar.length = max(tally.there, 1)
            bar.update(tally.read - bar.pos)

        tally.on_read = show
        yield


# What is printed ------------------------------------------------------------------------------------------------------


def as_object(summary: Summary) -> dict[str, Any]:
    return {
        "queue": summary.queue,
        "messages": summary.count,
        "read": summary.read,
        "since": summary.since or None,
        "reasons": dict(summary.reasons),
    }


def in_words(summary: Summary) -> str:
    name = in_one_line(summary.queue)
    if not summary.count:
        return f"{name}: empty"
    since = f" since {in_one_line(summary.since)}" if summary.since else ""
    of_first = f"; of the first {summary.read:,}" if summary.read < summary.count else ""
    return f"{name}: {messages(summary.count)}{since}{of_first}: {counted(summary.reasons)}"


def counted(reasons: Counter[str]) -> str:
    told = [f"{in_one_line(reason)} {count:,}" for reason, count in reasons.most_common(KINDS_SHOWN)]
    more = len(reasons) - len(told)
    return ", ".join([*told, *([f"{more} more reasons"] if more else [])])


def messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def result(queue: str, tally: Tally, done: str, as_json: bool) -> str:
    """What was done, and what stays with its reason."""
    if as_json:
        counts = {"queue": queue, "messages": tally.there, "selected": tally.selected, done: tally.done}
        return json.dumps({**counts, "unreadable": tally.unreadable, "stayed": dict(tally.stayed)})
    lines = [f"{done} {tally.done:,} of {messages(tally.there)} in {queue}"]
    lines += [f"{count:,} stay parked: {reason}" for reason, count in tally.stayed.most_common(KINDS_SHOWN)]
    if tally.unreadable:
        lines.append(f"{tally.unreadable:,} stay parked: they can't be read here")
    return "\n".join(map(in_one_line, lines))


def brief(message: Message) -> str:
    """A message in a line."""
    why = marks.Why.of(message)
    tried = f"{why.reason} after {why.attempts} attempt{'' if why.attempts == 1 else 's'}"
    error = f": {why.error}" if why.error else ""
    return in_one_line(f"{message.properties.get('message_id') or '-'}  {why.at or '-'}  {tried}{error}")


def whole(message: Message) -> str:
    """All that is known of a message."""
    properties = {name: value for name, value in message.properties.items() if name != "headers"}
    headers = dict(message.headers)
    traceback = headers.pop(marks.TRACEBACK, None)
    lines = [in_one_line(f"{name}: {value}") for name, value in {**properties, **headers}.items()]
    if isinstance(traceback, str):
        lines += ["traceback:", *indented(traceback)]
    try:
        text = message.body.decode()
    except UnicodeDecodeError:
        lines.append(f"body: {message.size:,} bytes that are no text (--json has them)")
    else:
        lines += [f"body: {message.size:,} bytes", *indented(text)]
    return "\n".join([*lines, ""])


def indented(text: str) -> list[str]:
    return [f"    {line}" for line in printable(text).splitlines()]
