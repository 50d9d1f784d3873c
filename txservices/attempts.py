"""Calls that are protected: made again where they failed without having run, and not made while a circuit is open.

``Client.call`` hands a call that has a ``Protection`` to ``Attempts``, which makes it by ``Client.call`` again, as
often as the policy says, without the protection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Protocol

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.amqp.options import Sending
from txservices.amqp.publish import Owner, unconfirmed_of
from txservices.breakers import Breakers, Circuit, Circuits
from txservices.deadlines import FOREVER
from txservices.exceptions import AmqpError, CircuitOpen, PublishBufferFull, PublishError, RpcTimeout, UnknownService
from txservices.retry import Retry

__all__ = ["Attempts", "Context", "Protection"]

log = Logger()

NOT_RUN = (UnknownService, PublishBufferFull)  # after these it is certain that no method has run, or will
NO_ANSWER = (CancelledError, PublishError, AmqpError)  # these say nothing about the service that is called


class Context(Owner, Protocol):
    """Somebody who makes calls: a worker, or a standalone proxy."""

    @property
    def context_data(self) -> Mapping[str, Any]: ...

    def time_left(self) -> float | None:
        """Seconds until its own caller gives up; None if that is not known."""


@frozen
class Protection:
    """How a proxy's calls are protected.

    Attributes:
        retry: which failed calls are made again; None for none.
        breakers: when calls are not made; None for no breaker.
    """

    retry: Retry | None = None
    breakers: Breakers | None = None


class Attempts:
    """One call, made once or more often. It is the context of the calls after the first, which end with its time.

    Attributes:
        answer: fires with the result, or fails with the last error. Cancelling it cancels the call that is under way.
        run: runs a function in the caller's context.
    """

    def __init__(
        self,
        make: Callable[..., Deferred[Any]],
        clock: Any,
        circuits: Circuits,
        waiting: set[Attempts],
        context: Context,
        service: str,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sending: Sending,
    ) -> None:
        protection: Protection = sending.protection
        self.make = make
        self.clock = clock
        self.waiting = waiting  # those of the client that wait for their next attempt
        self.context = context
        self.call = (service, method, args, kwargs, evolve(sending, protection=None))
        self.name = f"{service}.{method}"
        self.retry = protection.retry
        policy = None if protection.breakers is None else protection.breakers.of(service)
        self.circuit: Circuit | None = None if policy is None else circuits.of(service, policy)
        self.turn: int | None = None
        self.attempt = 0
        limits = [each for each in (sending.timeout, context.time_left()) if each is not None]
        self.timeout = min(limits, default=None)
        self.ends = FOREVER if self.timeout is None else clock.seconds() + self.timeout
        self.unconfirmed = unconfirmed_of(context)
        self.run = copy_context().run
        self.answer: Deferred[Any] = Deferred(self.cancel)
        self.pending: Deferred[Any] | None = None
        self.delayed: IDelayedCall | None = None
        self.failure: Failure | None = None

    @property
    def context_data(self) -> Mapping[str, Any]:
        return self.context.context_data

    def time_left(self) -> float | None:
        """Seconds that are left for all attempts; None for no end."""
        return None if self.ends == FOREVER else self.ends - self.clock.seconds()

    def begin(self) -> None:
        """Make the call, for the first time or once more. Raises what ``Client.call`` raises."""
        self.attempt += 1
        left = self.time_left()
        self.turn = None
        self.unconfirmed.calls.add(self)
        try:
            if self.circuit is not None and (left is None or left > 0):
                self.turn = self.circuit.begin(self.clock.seconds())
            pending = self.make(self.context if self.attempt == 1 else self, *self.call)
        except CircuitOpen as error:
            error.call = self.name
            self.failed(Failure(error))
        except BaseException:
            self.tell_circuit(CancelledError())
            self.unconfirmed.calls.discard(self)
            raise
        else:
            self.pending = pending
            pending.addCallbacks(self.succeeded, self.failed)

    def again(self) -> None:
        self.delayed = None
        self.waiting.discard(self)
        try:
            self.begin()
        except BaseException:  # arguments can be written the second time, too, unless somebody has changed them
            self.end(Failure())

    def end(self, outcome: Any) -> None:
        """Give the caller a result or a Failure. The caller's worker does not wait for the call any more."""
        self.unconfirmed.calls.discard(self)
        self.answer.callback(outcome)

    def succeeded(self, result: Any) -> None:
        self.tell_circuit(None)
        self.end(result)

    def failed(self, failure: Failure) -> None:
        error = failure.value
        assert error is not None, "a Failure has an error"
        self.tell_circuit(error)
        delay = self.delay_after(error)
        if delay is None:
            if isinstance(error, RpcTimeout) and self.attempt > 1:  # its own is what was left
                error.timeout, error.args = self.timeout, (self.timeout,)
            self.end(failure)
            return
        text = "the call of {call} is made again in {delay:g} s: {error}"
        log.debug(text, call=self.name, delay=delay, error=error)
        self.failure = failure
        self.waiting.add(self)
        self.delayed = self.clock.callLater(delay, self.run, self.again)

    def delay_after(self, error: BaseException) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        policy = self.retry
        if policy is None or self.attempt >= policy.attempts or isinstance(error, policy.give_up_on):
            return None
        if not isinstance(error, NOT_RUN) and not (policy.on_given and isinstance(error, policy.on)):
            return None
        delay, left = policy.delay_before(self.attempt + 1), self.time_left()
        return delay if left is None or delay < left else None

    def tell_circuit(self, error: BaseException | None) -> None:
        if self.circuit is not None and self.turn is not None:
            now = self.clock.seconds()
            if isinstance(error, NO_ANSWER) and not isinstance(error, self.circuit.policy.on):
                self.circuit.unknown(self.turn, now)
            else:
                self.circuit.ended(self.turn, error, now)

    def cancel(self, _: Any = None) -> None:
        """The caller has cancelled the call."""
        self.retry = None
        if self.delayed is not None:
            self.stop_waiting()
        elif self.pending is not None:
            self.pending.cancel()

    def give_up(self) -> None:
        """No further attempt is made: the last error is the answer."""
        self.stop_waiting()
        assert self.failure is not None, "it waits because it has failed"
        self.end(self.failure)

    def stop_waiting(self) -> None:
        assert self.delayed is not None, "it waits"
        self.waiting.discard(self)
        self.unconfirmed.calls.discard(self)
        self.delayed.cancel()
        self.delayed = None
