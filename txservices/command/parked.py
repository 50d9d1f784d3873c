"""`txservices parked`: what failed for good is looked at, replayed, discarded, and kept in files.

The work is done by ``retry.parked``. Here is what is typed for it and what is printed of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import IO, Any

import click
from twisted.internet.defer import Deferred

from txservices.amqp.connections import Connections
from txservices.command import exits
from txservices.command.client import as_client
from txservices.command.options import Given, configured
from txservices.command.shown import as_object, brief, in_words, result, whole
from txservices.exceptions import CommandError
from txservices.retry.jsonlines import Written, line_of, message_in
from txservices.retry.parked import NoParkingQueue, Parked, Selection, Tally, parking_name
from txservices.utils import default_reactor
from txservices.utils.printable import in_one_line

PART = ".part"  # how the name of a file ends that is not written to its end
INTERRUPTED = "interrupted: nothing was done"

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
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option("-m", "--module", "modules", multiple=True, metavar="MODULE[:CLASS]", help="The queues of its services.")
@click.option("--management", metavar="URL", help="All parking queues that RabbitMQ's management lists there.")
@configured
@json_option
def list_queues(
    queues: tuple[str, ...], modules: tuple[str, ...], management: str | None, given: Given, as_json: bool
) -> None:
    """Print how many messages each queue has parked, since when, and why."""
    if not (queues or modules or management):
        raise CommandError("say which queues: by their names, --module, or --management")
    config = given.config()
    from txservices.command import whereabouts  # it loads treq, which no other command needs

    found = list(map(parking_name, whereabouts.of_modules(modules, config)))

    async def operate(parked: Parked) -> int:
        status = 0
        named = set(map(parking_name, queues))
        listed = await whereabouts.parking_queues(management, parked.connections) if management else []
        for queue in dict.fromkeys([*map(parking_name, queues), *found, *listed]):
            tally = Tally()
            try:
                with progress(tally, queue):
                    summary = await parked.summary(queue, tally)
            except NoParkingQueue as error:
                if queue in named:
                    exits.tell(error)
                    status = exits.MISTAKE
                continue  # nothing of those that were found was parked yet
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


@parked.command("export")
@click.argument("queue")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@configured
@ids_option
@reasons_option
def export_lines(queue: str, file: str, given: Given, ids: tuple[str, ...], reasons: tuple[str, ...]) -> None:
    """Write messages to a file, as lines of JSON. They stay parked.

    FILE may be - for stdout. A file that is there is replaced once the new one is whole.
    """
    queue = parking_name(queue)
    selection = Selection(frozenset(ids), frozenset(reasons))

    async def operate(parked: Parked) -> int:
        tally = Tally()
        with replaced(file) as lines, progress(tally, queue):
            await parked.look(queue, selection, lambda message: lines.write(f"{line_of(message, queue)}\n"), tally)
            check_found(parked, queue, selection, tally)
        click.echo(result(queue, tally, "exported", False), err=True)
        tell_unread(parked, queue, tally)
        return exits.CRASH if tally.unreadable else 0

    on_broker(operate, given)


@parked.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@configured
@json_option
def import_lines(file: str, given: Given, as_json: bool) -> None:
    """Put the messages of a file that `export` has written into their parking queues.

    FILE may be - for stdin. Nothing of a file with a mistake is imported; of stdin, the lines before it are.
    """
    tally = Tally()
    if file != "-":
        tally.there = sum(1 for _ in messages_of(file))

    async def operate(parked: Parked) -> int:
        try:
            with progress(tally, file):
                await parked.add(messages_of(file), tally)
        finally:
            tally.there = max(tally.there, tally.read)
            click.echo(result(file, tally, "imported", as_json))
        tell_unread(parked, file, tally)
        return exits.CRASH if tally.stayed else 0

    on_broker(operate, given)


@contextmanager
def opened(path: str, mode: str) -> Iterator[IO[str]]:
    """A file, or stdin or stdout for ``-``. ``CommandError`` if it can't be opened, read or written."""
    try:
        with click.open_file(path, mode, encoding="utf-8") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None


@contextmanager
def replaced(path: str) -> Iterator[IO[str]]:
    """A file that takes the place of the one at ``path`` when it is written, and not if there is an error before.

    A pipe or a device is written to as it is, and so is stdout.
    """
    if path == "-" or (os.path.exists(path) and not os.path.isfile(path)):
        with opened(path, "w") as file:
            yield file
        return
    path = os.path.realpath(path)
    part = f"{path}{PART}"
    try:
        with opened(part, "w") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.remove(part)
        raise


def messages_of(path: str) -> Iterator[Written]:
    """The messages in the lines of a file. ``CommandError`` with the number of a line that is no message."""
    number = 0
    with opened(path, "r") as file:
        try:
            for line in file:
                number += 1
                if line.strip():
                    yield message_in(line)
        except ValueError as error:  # of JSON, and of bytes that are no UTF-8
            raise CommandError(f"{path}, line {number}: no message that was exported: {error}") from None


def selected(ids: Iterable[str], reasons: Iterable[str], all_of_it: bool) -> Selection:
    """The messages that the options mean. ``CommandError`` if they name no message, or both all and some."""
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
    with ExitStack() as stack:
        bar: Any = None

        def show() -> None:
            nonlocal bar
            if bar is None:  # not before: there may be no such queue
                bar = stack.enter_context(click.progressbar(length=1, label=in_one_line(label), file=sys.stderr))
            bar.length = max(tally.there, 1)
            bar.update(tally.read - bar.pos)

        tally.on_read = show
        yield
