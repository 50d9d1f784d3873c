"""``Retry``: how often a message whose handler fails is tried again, and when. ``Reject``: not at all. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, TypeAlias

from txservices.amqp.delays import DELAY_MAX
from txservices.exceptions import ConfigurationError
from txservices.safe import brief

__all__ = ["ErrorClasses", "Reject", "Retry", "as_policy"]

ATTEMPTS_MAX = 1_000  # of a policy: one that has more is taken for a mistake
DELAY_FIRST = 1.0  # seconds
DELAY_GROWTH = 2.0  # factor
DELAY_LAST = 300.0  # seconds
ATTEMPTS = 5  # the first included
JITTER = 0.1  # part of a delay
GROWTH_MAX = 1_000_000  # factor; with less, a delay of 1 ms is over any limit at the third attempt

ErrorClasses: TypeAlias = "type[BaseException] | Iterable[type[BaseException]]"

ANY_ERROR: ErrorClasses = (Exception,)


class Retry(Exception):
    """A policy: the message of a handler that fails is delivered again later, up to so many attempts in all.

        @event_handler("orders", "placed", retry=Retry(attempts=5, delay=1, growth=2, give_up_on=ValueError))

    It is an exception, too: a method that raises ``Retry(after=30)`` has its message delivered again in 30 seconds.
    That counts as an attempt of the policy that the entrypoint has, or of the one that is raised if it has none. In a
    method by ``http`` or ``timer`` it is an error like others, for there is no message.

    The first delay is ``delay``, each further one ``growth`` times as long, up to ``delay_max``. The broker holds the
    message meanwhile. A delay is rounded by up to 5 %, so that there are few queues for them: see ``amqp.delays``.

    As an option of a proxy, ``RpcProxy("y", retry=Retry())``, it is for calls: one that failed without having run is
    made again, within its time. The caller waits meanwhile.

    Raises ``ConfigurationError`` for values that can't be.

    Args:
        attempts: how often a message is handled at most, the first time included: from 1 to 1,000.
        delay: seconds before the second attempt, from 0.
        growth: factor from 1.
        delay_max: seconds that no delay is longer than.
        jitter: part of a delay by which it is made longer or shorter by chance, from 0 to 1, so that messages which
            failed together do not come back together.
        on: classes of exceptions after which a message is tried again: all of them if it isn't given. For a call of a
            proxy, those after which it is made again, besides the ones that tell that no method has run.
        give_up_on: classes of exceptions after which it isn't, although they are ``on``.
        after: seconds until the next attempt, when it is raised; if it isn't given, the policy says.
    """

    def __init__(
        self,
        attempts: int = ATTEMPTS,
        delay: float = DELAY_FIRST,
        growth: float = DELAY_GROWTH,
        delay_max: float = DELAY_LAST,
        jitter: float = JITTER,
        on: ErrorClasses = ANY_ERROR,
        give_up_on: ErrorClasses = (),
        *,
        after: float | None = None,
    ) -> None:
        super().__init__(f"it asks for another attempt{'' if after is None else f' in {after} s'}")
        check("attempts", attempts, 1, ATTEMPTS_MAX, whole=True)
        check("delay_max", delay_max, 0, DELAY_MAX)
        check("delay", delay, 0, delay_max, note=", which is delay_max")
        check("growth", growth, 1, GROWTH_MAX)
        check("jitter", jitter, 0, 1)
        if after is not None:
            check("after", after, 0, DELAY_MAX)
        self.attempts = attempts
        self.delay = delay
        self.growth = growth
        self.delay_max = delay_max
        self.jitter = jitter
        self.on = classes("on", on)
        self.on_given = on is not ANY_ERROR
        self.give_up_on = classes("give_up_on", give_up_on)
        self.after = after
        if not self.on:
            raise ConfigurationError("Retry(on=()): nothing is ever tried again; name exceptions, or give no retry")

    def wants(self, error: BaseException) -> bool:
        """Whether a message is tried again after that error, if there are attempts left."""
        if isinstance(error, (Retry, Reject)):
            return isinstance(error, Retry)
        return isinstance(error, self.on) and not isinstance(error, self.give_up_on)

    def delay_before(self, attempt: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds from a failure to the attempt of that number, which is 2 after the first failure.

        ``chance`` gives a number from 0 to 1.
        """
        try:
            delay = min(self.delay * self.growth ** (attempt - 2), self.delay_max)
        except OverflowError:
            delay = self.delay_max
        return min(delay * (1 + self.jitter * (2 * chance() - 1)), DELAY_MAX)


def as_policy(given: Any, otherwise: str) -> Retry:
    """What is given as ``retry=``. ``TypeError`` or ``ValueError`` if it is no policy, with what to give."""
    if given is Retry:
        raise TypeError("retry is the class Retry: write Retry()")
    if not isinstance(given, Retry):
        raise TypeError(f"retry is {brief(given)}: give a Retry, or {otherwise}")
    if given.after is not None:
        raise ValueError(f"retry is Retry(after={given.after!r}): after is for a method that raises it, give delay")
    return given


class Reject(Exception):
    """Raised by a method: its message is not tried again, but parked at once, with the reason that is given."""


def classes(name: str, given: ErrorClasses, of: str = "Retry") -> tuple[type[BaseException], ...]:
    found = (given,) if isinstance(given, type) or not isinstance(given, Iterable) else tuple(given)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in found):
        raise ConfigurationError(f"{of}({name}={given!r}): give classes of exceptions")
    return found


def check(
    name: str, value: Any, least: float, most: float, whole: bool = False, of: str = "Retry", note: str = ""
) -> None:
    kind = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not isfinite(value) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        raise ConfigurationError(f"{of}({name}={value!r}): give {what} from {least:g} to {most:,.12g}{note}")
