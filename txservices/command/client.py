"""A command that only asks services or the broker for something: it runs in the reactor until that is done."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click
from twisted.internet import task
from twisted.logger import LogLevel

from txservices import configuration
from txservices.command import exits, logs
from txservices.command.broker import for_client
from txservices.command.options import Given
from txservices.utils import default_reactor

CALLED = "interrupted: whether a method runs all the same is not known"


def as_client(work: Callable[[dict[str, Any]], Awaitable[None]], given: Given, interrupted: str = CALLED) -> None:
    """Run `work` in the reactor, then exit. An error is told in one line: 2 for a mistake of the user, 1 for others.

    A signal that comes before `work` has ended is told as well, with `interrupted`, and the status is that of shells
    for Ctrl-C.
    """
    config = given.config()
    under_way = True

    async def main(_: Any) -> None:
        nonlocal under_way
        logs.begin({}, sys.stderr, LogLevel.warn)
        configuration.warn_of_unknown(config)
        try:
            await work(await for_client(config, default_reactor()))
        except exits.MISTAKES as error:
            exits.tell(error)
            raise SystemExit(exits.MISTAKE) from None
        except KeyboardInterrupt:  # before the reactor runs, which takes signals from then on
            click.echo(interrupted, err=True)
            raise SystemExit(exits.INTERRUPTED) from None
        except BrokenPipeError:  # whoever reads what is printed has seen enough
            raise SystemExit(exits.CRASH) from None
        except Exception as error:
            click.echo(f"{type(error).__name__}: {exits.one_line(error)}", err=True)
            raise SystemExit(exits.CRASH) from None
        under_way = False

    try:
        task.react(main)
    except SystemExit as end:
        if under_way and not end.code:
            click.echo(interrupted, err=True)
            raise SystemExit(exits.INTERRUPTED) from None
        raise
