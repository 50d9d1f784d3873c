"""The entrypoint ``timer``: calls a method at a fixed interval, in every instance of the service.

Ticks come at whole intervals from the start, and never overlap: ticks that pass while a worker still runs are left out,
as ``LoopingCall`` does it. nameko makes up for them afterwards, in a burst, when the service is busiest.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from typing_extensions import Unpack

from txservices.exceptions import ConfigurationError, ContainerBeingKilled
from txservices.extensions import Entrypoint, EntrypointOptions, ExcInfo, WorkerContext
from txservices.utils.modules import callable_as_decorator

__all__ = ["Timer", "timer"]


class Timer(Entrypoint):
    """Calls the method without arguments, every ``interval`` seconds.

        @timer(interval=1)
        def ping(self): ...

    With ``eager`` it is also called at the start. An error in the method does not end the timer. With an interval of 0
    the method is called again as soon as it has ended.
    """

    may_yield = False

    def __init__(self, interval: float, eager: bool = False, **kwargs: Unpack[EntrypointOptions]) -> None:
        super().__init__(**kwargs)
        if not isinstance(interval, (int, float)) or interval < 0:
            raise ConfigurationError(f"timer(interval={interval!r}): give the seconds between two ticks, 0 or more")
        self.interval = interval
        self.eager = eager
        self.loop: LoopingCall | None = None

    def start(self) -> None:
        self.loop = loop = LoopingCall(self.tick)
        loop.clock = self.container.clock
        self.container.spawn_managed(lambda: loop.start(self.interval, now=self.eager), f"timer {self.method_name}")

    def tick(self) -> Deferred[None] | None:
        """Run one worker. Fires when its method has ended; the loop waits for that."""
        done: Deferred[None] = Deferred()

        def handle_result(
            worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
        ) -> tuple[Any, ExcInfo | None]:
            done.callback(None)
            return result, exc_info

        try:
            self.container.spawn_worker(self, (), {}, handle_result=handle_result)
        except ContainerBeingKilled:
            self.stop()
            return None
        return done

    def stop(self) -> None:
        if self.loop is not None and self.loop.running:
            self.loop.stop()

    def kill(self) -> None:
        self.stop()


timer = Timer.decorator

callable_as_decorator(__name__)  # `from txservices import timer` gives this module
