"""How this process ends: on which signals, in which order, and with which exit status.

0: a signal asked it to end (SIGTERM, Ctrl-C). 1: a service crashed. 2: the user made a mistake, told in one line.
The first signal stops the reactor, which stops the services in order. A second Ctrl-C ends without waiting. An end that
hangs all the same is ended by ``overtime``, with 1; so is the status if a stop had to give up something.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from txservices.command.loading import BrokenModule
from txservices.command.overtime import Overtime
from txservices.exceptions import ConfigurationError
from txservices.utils.address import cannot_listen
from txservices.utils.printable import in_one_line, printable
from txservices.utils.secrets import hide

CRASH = 1
MISTAKE = 2
INTERRUPTED = 130  # of a command that a signal has ended before it was done
MISTAKES = (ConfigurationError, CannotListenError)

log = Logger()


class Ending:
    """The one way in which the process ends.

    Attributes:
        status: the exit status so far.
        under_way: whether the reactor is being stopped.
        asked_for: whether a signal has asked for the end.
        hurry: called at a second Ctrl-C.
        overtime: the time that the end may still take.
        log_is_apart: whether the log goes elsewhere than stderr, so that a mistake has to be told there as well.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.status = 0
        self.under_way = False
        self.asked_for = False
        self.hurry: Callable[[], object] = lambda: None
        self.overtime = Overtime(partial(os._exit, CRASH))
        self.log_is_apart = False

    def end(self, status: int) -> None:
        """Stop the reactor, unless that is under way. The first status other than 0 is kept."""
        self.status = self.status or status
        if not self.under_way:
            self.under_way = True
            self.overtime.begin()
            self.overtime.keep_granting(self.reactor)
            self.reactor.stop()

    def fail(self, error: BaseException) -> None:
        """End because of `error`. To be called in its ``except``: a crash is logged with its traceback."""
        if isinstance(error, MISTAKES):
            tell(error)
            if self.log_is_apart:
                for line in lines_of(error):
                    log.error("{line}", line=line)
            self.end(MISTAKE)
        else:
            log.failure("a service crashed: stopping")
            self.end(CRASH)

    def watch_signals(self) -> None:
        """Handle SIGINT and SIGTERM here. To be called when the reactor runs, after it has set its own handlers."""
        # The reactor's handlers ignore a second Ctrl-C, and make twistd end by the signal instead of with status 0.
        signal.signal(signal.SIGINT, self.signalled)
        signal.signal(signal.SIGTERM, self.signalled)

    def signalled(self, number: int, frame: FrameType | None) -> None:
        # Here and not in asked: a reactor that has just stopped, or that stands still, does not call it any more.
        if number == signal.SIGINT and (self.asked_for or self.under_way):
            self.overtime.hurry()
        else:
            self.overtime.begin()
        self.asked_for = True
        self.reactor.callFromThread(self.asked, number)

    def asked(self, number: int) -> None:
        if not self.under_way:
            log.info("{signal}: stopping", signal=signal.Signals(number).name)
            self.end(0)
        elif number == signal.SIGINT:
            log.info("SIGINT again: not waiting for workers that still run")
            self.hurry()

    def services_ended(self, in_order: bool) -> None:
        """Everything has stopped; ``in_order`` is False if something had to be given up."""
        if not in_order:
            self.status = self.status or CRASH
        self.overtime.threads_only()

    def leave_at_exit(self) -> None:
        """Make the process end with the status, where another program runs the reactor: twistd always ends with 0."""
        atexit.register(self.leave)
        self.overtime.log_ends_first = True

    def leave(self) -> None:
        if self.status:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)


def tell(error: BaseException) -> None:
    """Print an error to stderr, a line for each mistake. An error in the user's own module comes with its traceback."""
    # not to sys.stderr, which twistd redirects to its log
    if isinstance(error, BrokenModule) and error.__cause__ is not None:
        print(hide(printable(traceback_of(error.__cause__))), end="", file=sys.__stderr__)
    for line in lines_of(error):
        print(f"Error: {line}", file=sys.__stderr__, flush=True)


def lines_of(error: BaseException) -> list[str]:
    """A line for each mistake that an error has."""
    return [one_line(mistake) for mistake in (isinstance(error, ConfigurationError) and error.args) or [error]]


def one_line(mistake: object) -> str:
    """A mistake or an error in one line for a person, without secrets."""
    if isinstance(mistake, CannotListenError):
        mistake = f"{cannot_listen(mistake)}, or choose another port"
    return hide(in_one_line(str(mistake))) or type(mistake).__name__


def traceback_of(error: BaseException) -> str:
    """The traceback without the lines of this project, from the user's first line on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def is_ours(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename.endswith(
        (os.path.join("command", "loading.py"), os.path.join("importlib", "__init__.py"))
    )
