"""The reactor of a program that has none: in a thread of its own, begun with the first call, anew after a fork.

    in_reactor(function, ...) -> begin -> the function, in the reactor's thread -> its value or its error

A program whose reactor runs already, as under ``twistd web --wsgi`` or by crochet, is served by that one.

Neither a thread nor a reactor survives a fork. The child has a copy of the reactor that nobody runs, with the parent's
sockets, and its poll waits on something that the child shares with the parent. So nothing is begun on import, or by
making a proxy, and a server that forks its workers first (gunicorn, uWSGI) needs nothing of this. A child of a process
whose reactor has been in use makes the reactor anew, in place: a module of the program's own that said
``from twisted.internet import reactor`` before the fork, or crochet, has the one that runs.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorAlreadyRunning, ReactorNotRestartable
from twisted.logger import STDLibLogObserver, globalLogBeginner
from twisted.python import threadable
from twisted.python.failure import Failure

from txservices.exceptions import RpcConnectionError
from txservices.shared import SharedServices
from txservices.utils import default_reactor

REACTOR = "twisted.internet.reactor"


class ReactorThread:
    """The reactor of this process, as its other threads see it.

    Attributes:
        inherited: the parent's reactor, if this process was forked from one that had one.
        parent: objects of the parent's. They are kept, because collecting them may close or log things of its.
        logging: whether Twisted's log has an observer; a child has those of its parent.
        services: objects that are kept in the reactor until the program ends.
        waiting: where the threads that wait in ``call`` get their outcomes.
    """

    def __init__(self, inherited: Any = None, parent: ReactorThread | None = None) -> None:
        self.inherited = inherited
        self.was_running = inherited is not None and inherited.running
        self.parent = parent
        self.lock = threading.Lock()
        self.begun = self.ended = False
        self.logging: bool = parent is not None and (parent.logging or self.was_running)
        self.services = SharedServices()
        self.waiting: set[SimpleQueue[Any]] = set()
        self.kept: dict[str, Any] = {}  # of the reactor, once a child has made it anew

    def begin(self) -> None:
        """Have a reactor run in this process. May be called from any thread, and as often as one likes."""
        if self.begun:
            return
        with self.lock:
            if self.begun:
                return
            if self.parent is not None:
                self.leave_parent(self.parent)
            self.reactor = default_reactor()
            self.reactor.callFromThread(self.prepare)
            if not self.reactor.running:
                # Both threads keep Python from exiting until the reactor has stopped in order. `atexit` would be too
                # late: it runs once all other threads have ended, and those of the reactor's pool end with the reactor.
                threading.Thread(target=self.run, name="txservices reactor").start()
                threading.Thread(target=self.stop_with_program, name="txservices end").start()
            self.begun = True

    def run(self) -> None:
        """The life of the reactor's thread."""
        if not self.logging:
            self.logging = True
            log_to_python()
        try:
            self.reactor.run(installSignalHandlers=False)
        except ReactorAlreadyRunning:
            pass  # the program has begun to run it at the same moment
        except ReactorNotRestartable:  # the program has run it before, and it has ended
            self.end()

    def stop_with_program(self) -> None:
        """Stop the reactor once the program's main thread has ended."""
        threading.main_thread().join()
        self.reactor.callFromThread(lambda: self.reactor.running and self.reactor.stop())

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """``in_reactor``, with the reactor begun."""
        outcome: SimpleQueue[Any] = SimpleQueue()
        with self.lock:
            if self.ended:
                raise end_of_program()
            self.waiting.add(outcome)
        calling: list[Deferred[None]] = []
        run = copy_context().run  # so that a call is part of the trace of the thread that makes it
        self.reactor.callFromThread(lambda: calling.append(maybeDeferred(run, function, *args).addBoth(outcome.put)))
        try:
            result = outcome.get()
        except BaseException:  # KeyboardInterrupt, or whatever else a signal's handler raises
            self.reactor.callFromThread(lambda: calling[0].cancel())
            raise
        finally:
            self.waiting.discard(outcome)
        if isinstance(result, Failure):
            result.raiseException()
        return result

    # In the reactor's thread

    def prepare(self) -> None:
        self.services.startService()
        self.reactor.addSystemEventTrigger("before", "shutdown", self.end)
        self.reactor.addSystemEventTrigger("before", "shutdown", self.services.stopService)

    def end(self) -> None:
        """The reactor stops: nobody waits for it any more."""
        with self.lock:
            self.ended = True
            for outcome in list(self.waiting):
                outcome.put(Failure(end_of_program()))

    # After a fork

    def leave_parent(self, parent: ReactorThread) -> None:
        """Have nothing more to do with the parent's reactor, unless this process has begun to run it itself."""
        inherited = self.inherited
        runs_here = inherited is not None and inherited.running and not self.was_running
        if inherited is not None and default_reactor() is inherited and not runs_here:
            if parent.begun:
                leave_sockets(inherited)
            # In place, for modules that hold it. Its attributes are kept, as all things of the parent's.
            parent.kept = dict(vars(inherited))
            vars(inherited).clear()
            inherited.__init__()
            threadable.ioThread = None  # the parent's thread; one of ours may come to have its number


def log_to_python() -> None:
    """Have Twisted log to Python's ``logging``, where the program looks. Warnings stay Python's."""
    show_warning = warnings.showwarning
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False)
    warnings.showwarning = show_warning


def end_of_program() -> RpcConnectionError:
    return RpcConnectionError("the program is ending, and its connections are closed")


def in_reactor(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the reactor's thread, wait for its value, and return that or raise its error.

    It may be ``async`` or give a Deferred, which is cancelled if the wait is interrupted.
    """
    thread = current()
    thread.begin()
    if threadable.isInIOThread():
        raise RuntimeError("this waits, and would hold the reactor whose thread it is: use txservices.standalone.rpc")
    return thread.call(function, *args)


def leave_sockets(reactor: Any) -> None:
    """Close the child's copies of the parent's sockets: else a peer sees no end when the parent is killed."""
    for each in (*reactor.getReaders(), *reactor.getWriters()):
        socket = getattr(each, "socket", None)
        if socket is not None:
            socket.close()  # closes this process's number alone: nothing goes out, and the parent's stays open


def forked() -> None:
    global _current
    _current = ReactorThread(sys.modules.get(REACTOR), _current)


_current = ReactorThread()


def current() -> ReactorThread:
    """The ``ReactorThread`` of this process."""
    return _current


os.register_at_fork(after_in_child=forked)
