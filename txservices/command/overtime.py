"""Ends the process when its own end hangs: a thread logs the cause, with the stack, and exits with status 1.

While the services stop, the reactor grants itself ``REACTOR_TIMEOUT`` again and again, so only one that stands still
overruns it. Once they have stopped, the threads that still run have ``THREADS_TIMEOUT``. After a second Ctrl-C there
are ``HURRY_TIMEOUT``, whatever is granted later. Nothing here needs a reactor that turns.
"""

from __future__ import annotations

import _thread
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txservices.deadlines import FOREVER
from txservices.watchdog import stack_of

REACTOR_TIMEOUT = 30.0  # seconds that the reactor may stand still while the process ends
THREADS_TIMEOUT = 5.0  # seconds for the threads that still run when the services have stopped
HURRY_TIMEOUT = 3.0  # seconds after a second Ctrl-C
TELL_TIMEOUT = 1.0  # seconds to write what keeps the process: the log itself may be what hangs
INTERVAL = 0.25  # seconds between two looks at the time that is left
STACKS_MAX = 10  # threads whose stacks are told

log = Logger()


class Overtime:
    """The time that the end of this process may still take. ``begin`` and ``hurry`` may be called by signal handlers.

    Args:
        leave: ends the process with status 1, without cleaning up.
        now: a clock that every thread may read.

    Attributes:
        log_ends_first: whether the log is closed before threads have ended, as twistd does it.
    """

    def __init__(self, leave: Callable[[], object], now: Callable[[], float] = time.monotonic) -> None:
        self.leave = leave
        self.now = now
        self.granted = ""  # the time that the deadline was made of, for the log
        self.deadline = self.latest = FOREVER
        self.watching = self.cancelled = self.services_ended = self.log_ends_first = False
        self.granting = LoopingCall(self.begin)

    def begin(self) -> None:
        """The process is to end. From now on the reactor must turn, until it ends."""
        if not self.services_ended:
            self.grant(REACTOR_TIMEOUT)

    def keep_granting(self, clock: Any) -> None:
        """Grant the reactor its time for as long as it turns. To be called in the reactor."""
        self.granting.clock = clock
        self.granting.start(1.0)  # far less than REACTOR_TIMEOUT

    def threads_only(self) -> None:
        """The services have ended. To be called in the reactor."""
        if self.granting.running:
            self.granting.stop()
        self.services_ended = True
        self.grant(THREADS_TIMEOUT)

    def hurry(self) -> None:
        """There was a second Ctrl-C."""
        self.latest = min(self.latest, self.now() + HURRY_TIMEOUT)
        self.grant(HURRY_TIMEOUT)

    def cancel(self) -> None:
        """The process does not end after all."""
        self.cancelled = True

    def grant(self, seconds: float) -> None:
        deadline = self.now() + seconds
        if deadline < self.latest:
            self.deadline, self.granted = deadline, f"within {seconds:g} s"
        else:
            self.deadline, self.granted = self.latest, f"{HURRY_TIMEOUT:g} s after the second Ctrl-C"
        if not self.watching:
            self.watching = True
            # Not threading.Thread: a signal handler may have interrupted code that holds threading's own lock.
            _thread.start_new_thread(self.watch, ())

    # In the thread

    def watch(self) -> None:
        while not self.cancelled:
            left = self.deadline - self.now()
            if left <= 0:
                self.give_up()
                return
            time.sleep(min(left, INTERVAL))

    def give_up(self) -> None:
        """Tell what keeps the process, and leave."""
        frames = sys._current_frames()
        telling = threading.Thread(target=self.tell, args=(frames,), daemon=True)
        try:
            telling.start()
        except RuntimeError:  # Python 3.12 begins no thread once it waits for threads: then nothing limits the time
            self.tell(frames)
        else:
            telling.join(TELL_TIMEOUT)
        self.leave()

    def tell(self, frames: dict[int, FrameType]) -> None:
        """Write which threads keep the process, and where they are."""
        main = threading.main_thread()
        threads = [each for each in threading.enumerate() if not each.daemon and each is not main]
        if not self.services_ended or not threads:
            threads = [main]
        held = "A thread" if len(threads) == 1 else f"{len(threads)} threads"
        stacks = "\n".join(where(each, frames) for each in threads[:STACKS_MAX])
        text = (
            f"the process has not ended {self.granted}, and is ended now, with exit status 1. {held} held"
            " it, and unacknowledged messages go back to their queues. A call that blocks needs a timeout of its own,"
            f" a thread that may be left has to be a daemon\n{stacks}"
        )
        log.error("{text}", text=text)
        if self.log_ends_first and self.services_ended:
            print(text, file=sys.__stderr__)
        logging.shutdown()
        for file in (sys.stdout, sys.stderr, sys.__stderr__):
            if file is not None:
                file.flush()


def where(thread: threading.Thread, frames: dict[int, FrameType]) -> str:
    """The name of a thread and where it is, in lines of text."""
    frame = frames.get(thread.ident or 0)
    lines = [] if frame is None else traceback.format_list(stack_of(frame))
    return f"thread {thread.name}:\n{''.join(lines)}".rstrip()
