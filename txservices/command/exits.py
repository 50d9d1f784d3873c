"""How this process ends: on which signals, in which order, and with which exit status.

0: it was asked to (SIGTERM, Ctrl-C). 1: a service crashed. 2: a user's mistake, told in one line.
A first signal stops the reactor, and with it the services in their order; a second Ctrl-C does not wait.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from txservices.command.loading import BrokenModule
from txservices.exceptions import ConfigurationError

CRASH = 1
MISTAKE = 2
MISTAKES = (ConfigurationError, CannotListenError)

log = Logger()


class Ending:
    """The exit status so far, and the one way to the end."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.status = 0
        self.under_way = False
        self.asked_for = False  # by a signal
        self.hurry: Callable[[], object] = lambda: None  # what a second Ctrl-C does

    def end(self, status: int) -> None:
        """Stop the reactor, unless it is being stopped; the first status that is not 0 stays."""
        self.status = self.status or status
        if not self.under_way:
            self.under_way = True
            self.reactor.stop()

    def fail(self, error: BaseException) -> None:
        """End because of `error`, which is being handled: a mistake is told in one line, else its traceback."""
        if isinstance(error, MISTAKES):
            tell(error)
            self.end(MISTAKE)
        else:
            log.failure("a service crashed: stopping")
            self.end(CRASH)

    def watch_signals(self) -> None:
        """Take SIGINT and SIGTERM over from the reactor, once it runs and has set its own handlers.

        Those know no second Ctrl-C, and they make twistd end by the signal instead of with 0.
        """
        signal.signal(signal.SIGINT, self.signalled)
        signal.signal(signal.SIGTERM, self.signalled)

    def signalled(self, number: int, frame: FrameType | None) -> None:
        self.asked_for = True  # at once: a reactor that has just ended runs nothing more
        self.reactor.callFromThread(self.asked, number)

    def asked(self, number: int) -> None:
        if not self.under_way:
            log.info("{signal}: stopping", signal=signal.Signals(number).name)
            self.end(0)
        elif number == signal.SIGINT:
            log.info("SIGINT again: not waiting for what still runs")
            self.hurry()

    def leave_at_exit(self) -> None:
        """Give the status to a process whose reactor another program runs.

        twistd ends with 0 and has no way to say otherwise.
        """
        atexit.register(self.leave)

    def leave(self) -> None:
        if self.status:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)


def tell(error: BaseException) -> None:
    """One line on stderr; an error inside the user's module comes with its traceback."""
    # not sys.stderr: twistd puts its log there
    if isinstance(error, BrokenModule) and error.__cause__ is not None:
        print(traceback_of(error.__cause__), end="", file=sys.__stderr__)
    print(f"Error: {one_line(error)}", file=sys.__stderr__, flush=True)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The traceback from the user's first line on: how we got there says nothing."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def is_ours(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename.endswith(
        (os.path.join("command", "loading.py"), os.path.join("importlib", "__init__.py"))
    )
