"""`run --reload`: the process restarts when a file that it has loaded changes. A mistake in a file does not end it.

    serve -> a file changes -> stop the services in order -> restart
    serve -> it ends with an error -> wait until a file changes -> restart

A restart runs the same command line in the same process, which keeps its process id: whoever started it sees nothing.
The files are the configuration file and the source of every module loaded so far, without installed packages.
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

INTERVAL = 0.5  # seconds between two looks at the files; a restart waits for a look that finds no further change

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
    """Looks at files again and again, and notices when they have changed.

    Attributes:
        due: whether some file has changed, and no file changed between the last two looks.
    """

    def __init__(self, files: Iterable[str], modules: Mapping[str, ModuleType | None] = sys.modules) -> None:
        self.modules = modules
        self.states: dict[str, tuple[int, int] | None] = {}
        self.changing = self.due = False
        self.add(files)

    def add(self, files: Iterable[str]) -> None:
        for file in files:
            path = os.path.abspath(file)
            if path not in self.states:
                self.states[path] = state_of(path)

    def look(self) -> bool:
        """Look once; gives ``due``. An editor may write several files: a restart in the middle would fail."""
        changed = [path for path, before in self.states.items() if state_of(path) != before]
        for path in changed:
            self.states[path] = state_of(path)
        self.add(sources(self.modules))
        self.due = self.changing and not changed
        self.changing = bool(changed) or self.changing
        if changed:
            log.info("changed: {paths}", paths=", ".join(os.path.relpath(path) for path in changed))
        return self.due


def state_of(path: str) -> tuple[int, int] | None:
    """Time of last change and size of a file, or None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def sources(modules: Mapping[str, ModuleType | None]) -> Iterator[str]:
    """The source files of those modules that do not come from an installed package."""
    for module in list(modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path.endswith(".py") and not path.startswith(INSTALLED):
            yield path


def sources_of_error(error: BaseException | None) -> Iterator[str]:
    """The files that an error was raised in or passed through."""
    # a module that could not be imported is not in sys.modules, so its file has to be found in this way
    while error is not None:
        yield from (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        error = error.__cause__ or error.__context__


def keep_serving(serve: Callable[[exits.Ending], NoReturn], files: Iterable[str], reactor: Any) -> NoReturn:
    """Call `serve`, and restart after each change to `files` or to a module, until a signal asks the process to end."""
    # Python compares sources by the second: the bytecode of a source that changes again within it would be kept.
    sys.dont_write_bytecode = True
    folder = os.getcwd()
    watcher = Watcher(files)
    ending = exits.Ending(reactor)

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        ending.asked_for = True
        sys.exit(0)

    handle_signals(leave)  # while the reactor runs, its own handlers are in place
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # see restart

    def look() -> None:
        if watcher.look() and not ending.under_way:
            log.info("restarting")
            ending.end(0)

    # The first look comes before the services start: their modules are loaded by then, so no later change is missed.
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
    ending.overtime.cancel()
    if ending.asked_for or not (status or watcher.due):
        raise SystemExit(status)
    if not watcher.due:
        wait(watcher)
    restart(folder)


def handle_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in ENDING:
        signal.signal(number, handler)


def failed(failure: Failure) -> None:
    log.failure("changes of files are not noticed any more", failure)


def wait(watcher: Watcher) -> None:
    """Wait for a change."""
    # without the reactor: it has stopped, and can't be started twice in one process
    print("waiting for a change", flush=True)
    while not watcher.look():
        time.sleep(INTERVAL)


def restart(folder: str) -> NoReturn:
    """Run the command line again, in this process and in place of the program that runs in it now."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(folder)
    # A signal would kill the new program before keep_serving has set its handlers. Blocked, it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
