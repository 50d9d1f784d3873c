"""`run --reload`: the process begins anew after a change to what it has loaded, and never ends by a mistake in it.

    serve -> a change -> stop in order -> the same command line, in this same process
    serve -> ends with an error -> wait for a change -> the same

Watched are the config and the source of every module loaded by now, but for what was installed. The process keeps its
number, so that whoever started it need not know.
"""

from __future__ import annotations

import logging
import os
import signal
import site
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, ModuleType
from typing import Any, NoReturn

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.command import exits
from txservices.exceptions import ConfigurationError

INTERVAL = 0.5  # seconds between two looks; a change is acted on once there was none between two

ENDING = (signal.SIGINT, signal.SIGTERM)

INSTALLED = tuple(
    folder + os.sep
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)

log = Logger()


class Watcher:
    """Looks at files, and remembers what they were like when it looked before.

    Attributes:
        settled: whether a change has been seen, and is over by now.
    """

    def __init__(self, files: Iterable[str], modules: Mapping[str, ModuleType | None] = sys.modules) -> None:
        self.modules = modules
        self.states: dict[str, tuple[int, int] | None] = {}
        self.changing = self.settled = False
        self.add(files)

    def add(self, files: Iterable[str]) -> None:
        for file in files:
            path = os.path.abspath(file)
            if path not in self.states:
                self.states[path] = state_of(path)

    def look(self) -> bool:
        """Whether to begin anew: something has changed, and since the last look nothing more has."""
        changed = [path for path, before in self.states.items() if state_of(path) != before]
        for path in changed:
            self.states[path] = state_of(path)
        self.add(sources(self.modules))
        self.settled = self.changing and not changed
        self.changing = bool(changed) or self.changing
        if changed:
            log.info("changed: {paths}", paths=", ".join(os.path.relpath(path) for path in changed))
        return self.settled


def state_of(path: str) -> tuple[int, int] | None:
    """What changes when the file does; None when it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def sources(modules: Mapping[str, ModuleType | None]) -> Iterator[str]:
    """Where the modules come from that were not installed."""
    for module in list(modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path.endswith(".py") and not path.startswith(INSTALLED):
            yield path


def sources_of_error(error: BaseException | None) -> Iterator[str]:
    """Where an error came by: a module that could not be loaded is in no list of modules."""
    while error is not None:
        yield from (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        error = error.__cause__ or error.__context__


def keep_serving(serve: Callable[[exits.Ending], NoReturn], files: Iterable[str], reactor: Any) -> NoReturn:
    """Serve until asked to end; `files` are looked at beside the modules."""
    sys.dont_write_bytecode = True  # it would be taken for that of a source changed within the second
    folder = os.getcwd()
    watcher = Watcher(files)
    ending = exits.Ending(reactor)

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        ending.asked_for = True
        sys.exit(0)

    handle_signals(leave)  # the reactor's handlers take over while it runs
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # see begin_anew

    def look() -> None:
        if watcher.look() and not ending.under_way:
            log.info("beginning anew")
            ending.end(0)

    # from the reactor's start on, which the services' follows: what they are told to have loaded has been seen
    looking = LoopingCall(look)
    reactor.callWhenRunning(lambda: looking.start(INTERVAL).addErrback(failed))
    status = 0
    try:
        serve(ending)
    except ConfigurationError as error:
        exits.tell(error)
        watcher.add(path for path in sources_of_error(error) if not path.startswith((*INSTALLED, "<")))
        status = exits.MISTAKE
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else exits.CRASH
    handle_signals(leave)
    if ending.asked_for or not (status or watcher.settled):
        raise SystemExit(status)
    if not watcher.settled:
        wait(watcher)
    begin_anew(folder)


def handle_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in ENDING:
        signal.signal(number, handler)


def failed(failure: Failure) -> None:
    log.failure("no change will be seen any more", failure)


def wait(watcher: Watcher) -> None:
    """Wait for a change, without a reactor: this process's has come to its end, or was never begun."""
    print("waiting for a change", flush=True)
    while not watcher.look():
        time.sleep(INTERVAL)


def begin_anew(folder: str) -> NoReturn:
    """The command line once more, in place of what runs in this process now."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(folder)
    # Until keep_serving has its handlers in place, a signal would kill the new program: it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
