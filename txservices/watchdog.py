"""Names whoever holds the reactor: a thread looks at the reactor's stack when the reactor stands still.

    reactor: notes the time, four times per timeout   <-   thread: is the note too old? -> log where the reactor is

A plain method runs in the reactor's thread. While it computes, or waits for something that blocks, no other worker
goes on and no heartbeat goes out. Workers pay nothing for this. Its only costs are the notes and the thread's looks.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

import twisted
import txservices
from txservices import configuration
from txservices.callids import on_behalf_of
from txservices.extensions import WorkerContext
from txservices.workers import Workers

LOOKS = 4  # per timeout: so a reactor that is held is noticed after 1 to 1.5 timeouts

# The functions that call all others, in Twisted's reactors and in asyncio's; `fireEvent` while they start and stop
MAIN_LOOPS = {"mainLoop", "run_forever", "fireEvent"}
LIFE_OF_A_WORKER = Workers.live.__code__
FOLDERS = tuple(os.path.dirname(str(package.__file__)) + os.sep for package in (twisted, txservices))

log = Logger()


class Watchdog(Service):
    """Watches the reactor from its start to its stop, both of which happen in the reactor's thread.

    Args:
        timeout: for how many seconds the reactor may be held.
        now, cpu: clocks that may be read in any thread. The second tells how much processor time this process has had.
    """

    def __init__(
        self,
        timeout: float,
        clock: Any,
        now: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.timeout = timeout
        self.interval = timeout / LOOKS
        self.now = now
        self.cpu = cpu
        self.stamp = self.told = 0.0
        self.looked = (0.0, 0.0)
        self.reactor_thread = 0
        self.ended = threading.Event()
        self.beating = LoopingCall(self.beat)
        self.beating.clock = clock

    def startService(self) -> None:
        super().startService()
        self.ended.clear()
        self.reactor_thread = threading.get_ident()
        self.looked = self.now(), self.cpu()
        self.beating.start(self.interval)
        threading.Thread(target=self.watch, name="txservices.watchdog", daemon=True).start()

    def stopService(self) -> None:
        super().stopService()
        self.ended.set()
        if self.beating.running:
            self.beating.stop()

    def beat(self) -> None:
        before, self.stamp = self.stamp, self.now()
        if before == self.told != 0:
            log.warn("the reactor goes on, after {seconds:.1f} s", seconds=self.stamp - before)

    # In the thread

    def watch(self) -> None:
        while not self.ended.wait(self.interval):
            self.look()

    def look(self) -> None:
        """Log, once each time, who holds the reactor if it has been held for longer than the timeout."""
        stamp, now, cpu = self.stamp, self.now(), self.cpu()
        (looked, used), self.looked = self.looked, (now, cpu)
        # This thread is late if the whole process was stopped or starved, which is no fault of a method. It is also
        # late if an extension in C keeps the interpreter to itself, but then the process has used the processor.
        if now - looked > self.timeout and cpu - used < self.timeout / 2:
            return
        # the stamp may already be an interval old when the reactor begins to be held
        if now - stamp <= self.timeout + self.interval or stamp == self.told:
            return
        frame = sys._current_frames().get(self.reactor_thread)
        if frame is not None and self.stamp == stamp:
            self.told = stamp
            worker = worker_in(frame)
            # logged in this thread, for the reactor can't be asked to
            on_behalf_of(
                worker,
                log.warn,
                "the reactor has been held for {seconds:.1f} s by {who}: what blocks belongs in a thread"
                " (blocking = True), what computes for long should await now and then\n{stack}",
                seconds=now - stamp,
                who=where(frame) if worker is None else f"{worker.service_name}.{worker.entrypoint.method_name}",
                stack="".join(traceback.format_list(stack_of(frame))).rstrip(),
            )


def worker_in(frame: FrameType) -> WorkerContext | None:
    """The innermost worker on a stack."""
    lives = (each for each, _ in traceback.walk_stack(frame) if each.f_code is LIFE_OF_A_WORKER)
    return next((each.f_locals["worker"] for each in lives), None)


def where(frame: FrameType) -> str:
    """The first function on a stack that is not the framework's."""
    first = stack_of(frame)[0]
    return f"{first.name} ({first.filename}:{first.lineno})"


def stack_of(frame: FrameType) -> traceback.StackSummary:
    """The stack from the first call that is not the framework's. How the reactor came there says nothing."""
    frames: list[FrameType] = []  # the outermost comes last
    for each, _ in traceback.walk_stack(frame):
        if frames and (each.f_code is LIFE_OF_A_WORKER or each.f_code.co_name in MAIN_LOOPS):
            break
        frames.append(each)
    while len(frames) > 1 and frames[-1].f_code.co_filename.startswith(FOLDERS):
        frames.pop()
    return traceback.StackSummary.extract((each, each.f_lineno) for each in reversed(frames))


def watchdog(config: Mapping[str, Any], clock: Any) -> Service:
    """The watchdog that BLOCKED_REACTOR_TIMEOUT asks for. With null or 0 it is a service that does nothing."""
    timeout = configuration.BLOCKED_REACTOR_TIMEOUT.of(config)
    return Watchdog(timeout, clock) if timeout else Service()
