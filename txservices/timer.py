"""Methods called every so many seconds, in every instance of the service.

Ticks are due at whole intervals from the start and never overlap; those that passed while a worker ran are left out,
as ``LoopingCall`` does it. (nameko fires them all at once afterwards, a burst when the service is busiest.)
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from typing_extensions import Unpack

from txservices.exceptions import ConfigurationError, ContainerBeingKilled
from txservices.extensions import Entrypoint, EntrypointOptions, ExcInfo, WorkerContext
from txservices.utils.modules import callable_as_decorator


class Timer(Entrypoint):
    """Calls the method, without arguments, every ``interval`` seconds, and with ``eager`` at the start, too.

        @timer(interval=1)
        def ping(self): ...

    An exception in the method does not end it. An interval of 0 begins again as soon as the method is done.
    """

    def __init__(self, interval: float, eager: bool = False, **kwargs: Unpack[EntrypointOptions]) -> None:
        super().__init__(**kwargs)
        if not isinstance(interval, (int, float)) or interval < 0:
            raise ConfigurationError(f"timer(interval={interval!r}): give the seconds from tick to tick, 0 or more")
        self.interval = interval
        self.eager = eager
        self.loop: LoopingCall | None = None

    def start(self) -> None:
        self.loop = loop = LoopingCall(self.tick)
        loop.clock = self.container.clock
        self.container.spawn_managed(lambda: loop.start(self.interval, now=self.eager), f"timer {self.method_name}")

    def tick(self) -> Deferred[None] | None:
        """One worker. Fires when its method is done, and the loop waits for that."""
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
