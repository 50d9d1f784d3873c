"""The reactor of a program that has none: in a thread of crochet's, begun with the first call, anew after a fork.

    in_reactor(function, ...) -> begin -> the function, in the reactor's thread -> its value or its error

A program whose reactor runs already, as under ``twistd web --wsgi``, is served by that one.

Neither a thread nor a reactor survives a fork: the child has a copy of the reactor that nobody runs, with the parent's
sockets and, shared with the parent, what its poll waits on. So nothing is begun on import, or by making a proxy, and a
server that forks its workers first (gunicorn, uWSGI) needs nothing of this. A child of a process whose reactor has been
in use gets a new one, and crochet's event loop is made again in place, so that the program's own use of crochet goes on
as well. What cannot be mended is a module of the program's own that said ``from twisted.internet import reactor``
before the fork: it holds the parent's.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import crochet
from crochet._eventloop import ThreadLogObserver
from crochet._shutdown import FunctionRegistry, Watchdog
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.main import installReactor
from twisted.internet.process import reapAllProcesses
from twisted.logger import LegacyLogObserverWrapper, globalLogPublisher
from twisted.python import log as legacy_log
from twisted.python import threadable

from txservices.amqp.publish import unconfirmed
from txservices.containers import SharedServices
from txservices.exceptions import RpcConnectionError
from txservices.utils import default_reactor

REACTOR = "twisted.internet.reactor"
FOREVER = threading.TIMEOUT_MAX  # what runs in the reactor has time limits of its own


class ReactorThread:
    """The reactor of this process, as seen from its other threads.

    Attributes:
        inherited: the parent's reactor, if this process was forked from one that had one.
        services: what is kept in the reactor until the program ends.
        parent: what the parent had. Kept, because what is collected may close or log what is the parent's.
    """

    def __init__(self, inherited: Any = None, parent: ReactorThread | None = None) -> None:
        self.inherited = inherited
        self.was_running = inherited is not None and inherited.running
        self.parent = parent
        self.lock = threading.Lock()
        self.begun = False
        self.services = SharedServices()

    def begin(self) -> None:
        """Have a reactor run in this process. May be called from any thread, and as often as one likes."""
        if self.begun:
            return
        with self.lock:
            if self.begun:
                return
            if self.parent is not None:
                self.settle_in(self.parent)
            reactor = default_reactor()
            if reactor.running:
                use_running_reactor()
            else:
                crochet.setup()
            reactor.callFromThread(self.services.startService)
            reactor.callFromThread(reactor.addSystemEventTrigger, "before", "shutdown", self.services.stopService)
            self.begun = True

    def settle_in(self, parent: ReactorThread) -> None:
        """Have nothing more to do with the parent's reactor, unless this process has begun to run it itself."""
        inherited = self.inherited
        runs_here = inherited is not None and inherited.running and not self.was_running
        if inherited is not None and default_reactor() is inherited and not runs_here:
            if parent.begun:
                leave_sockets(inherited)
            replace_reactor(inherited)
            renew_crochet()
        elif not event_loop()._started:
            renew_crochet()  # from Python 3.13 on, a thread made before a fork can't be started after it


def use_running_reactor() -> None:
    try:
        crochet.no_setup()
    except RuntimeError:  # crochet has been set up already, one way or the other
        pass


def in_reactor(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in the reactor's thread, wait for what it gives, and give that or raise its error.

    It may be ``async`` or give a Deferred, which is cancelled if the wait is interrupted.
    """
    current().begin()
    if threadable.isInIOThread():
        raise RuntimeError("this waits, and would hold the reactor whose thread it is: use txservices.standalone.rpc")
    given_up: list[bool] = []

    def run() -> Deferred[Any]:
        return maybeDeferred(function, *args).addErrback(lambda failure: None if given_up else failure)

    try:
        result = crochet.run_in_reactor(run)()
        try:
            return result.wait(FOREVER)
        except BaseException:  # KeyboardInterrupt, or what else a signal's handler raises; or it was the result
            given_up.append(True)
            result.cancel()
            raise
    except crochet.ReactorStopped:
        raise RpcConnectionError("the program is ending, and its connections are closed") from None


# Forks ----------------------------------------------------------------------------------------------------------------


def event_loop() -> Any:
    """Crochet's, of which there is one."""
    setup: Any = crochet.setup
    return setup.__self__


def replace_reactor(inherited: Any) -> None:
    """Another reactor of the same kind in place of the parent's."""
    del sys.modules[REACTOR]
    installReactor(type(inherited)())
    threadable.ioThread = None  # the parent's thread; one of ours may come to have its number


def renew_crochet() -> None:
    """Crochet's event loop as it was when crochet was imported. In place: what it has decorated holds it."""
    start_logging: Callable[..., Any] = legacy_log.startLoggingWithObserver
    for observer in list(globalLogPublisher._observers):
        if isinstance(observer, LegacyLogObserverWrapper) and isinstance(observer.legacyObserver, ThreadLogObserver):
            globalLogPublisher.removeObserver(observer)  # its thread is gone: messages would pile up for it
            start_logging = add_observer  # and logging has begun
    at_end = FunctionRegistry()
    watchdog = Watchdog(threading.main_thread(), at_end.run)
    loop = event_loop()
    type(loop).__init__(loop, default_reactor, at_end.register, start_logging, watchdog, reapAllProcesses)


def add_observer(observer: Any, _: bool) -> None:
    legacy_log.addObserver(observer)


def leave_sockets(reactor: Any) -> None:
    """Close the child's copies of the parent's sockets: else a peer sees no end when the parent is killed."""
    for each in (*reactor.getReaders(), *reactor.getWriters()):
        socket = getattr(each, "socket", None)
        if socket is not None:
            socket.close()  # of this process's number alone: nothing goes out, the parent's stays open


def forked() -> None:
    global _current
    unconfirmed.counts.clear()  # the parent's to wait for
    unconfirmed.waiting.clear()
    _current = ReactorThread(sys.modules.get(REACTOR), _current)


_current = ReactorThread()


def current() -> ReactorThread:
    """That of this process."""
    return _current


os.register_at_fork(after_in_child=forked)
