"""Circuit breakers by themselves: when one opens, what it lets through, and what a configuration may write."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.observing import hearing
from txservices.breakers import CIRCUITS_MAX, Breakers, Circuit, CircuitBreaker, Circuits
from txservices.exceptions import (
    CircuitOpen,
    ConfigurationError,
    MethodNotFound,
    RemoteError,
    ReplyQueueExpiredWithPendingReplies,
    RpcConnectionError,
    RpcTimeout,
    UnknownService,
)

POLICY = CircuitBreaker(failures=0.5, window=10, minimum=4, open_for=5)
LATE = RpcTimeout(1)


class CircuitTests(SynchronousTestCase):
    """The calls of one service."""

    def setUp(self) -> None:
        self.circuit = Circuit("service", POLICY)

    def call(self, now: float, error: BaseException | None = None) -> None:
        self.circuit.ended(self.circuit.begin(now), error, now)

    def is_open(self, now: float) -> bool:
        before = self.circuit.next_probe
        try:
            self.circuit.begin(now)
        except CircuitOpen:
            return True
        self.circuit.next_probe = before
        return False

    def opened(self) -> None:
        for _ in range(4):
            self.call(0, LATE)
        self.assertTrue(self.is_open(0))

    def test_opens(self) -> None:
        """It opens at the rate, once there are enough calls in the window."""
        table: list[tuple[list[tuple[float, int, int]], bool]] = [  # each: when, calls that succeed, then that fail
            ([(0, 0, 3)], False),
            ([(0, 0, 4)], True),
            ([(0, 2, 2)], True),
            ([(0, 3, 2)], False),
            ([(0, 3, 2), (9, 0, 1)], True),
            ([(0, 3, 0), (5, 0, 2), (10.5, 0, 1)], False),  # three in the window
            ([(0, 3, 0), (5, 0, 3), (10.5, 0, 1)], True),
            ([(0, 0, 3), (100, 0, 3), (200, 0, 3)], False),
        ]
        for calls, expected in table:
            self.circuit = Circuit("service", POLICY)
            for now, good, bad in calls:
                for error in [None] * good + [LATE] * bad:
                    self.call(now, error)
            self.assertEqual(self.is_open(calls[-1][0]), expected, calls)

    def test_failures(self) -> None:
        """A failure is that no answer came; an error that the service gave is an answer, unless the policy says so."""
        gone = ReplyQueueExpiredWithPendingReplies("gone")
        for error in (LATE, UnknownService("s"), RpcConnectionError("cut"), gone):
            self.circuit = Circuit("service", POLICY)
            for _ in range(4):
                self.call(0, error)
            self.assertTrue(self.is_open(0), error)
        for error in (RemoteError("ValueError", "no"), MethodNotFound("m")):
            for policy, expected in ((POLICY, False), (CircuitBreaker(minimum=4, on=type(error)), True)):
                self.circuit = Circuit("service", policy)
                for _ in range(4):
                    self.call(0, error)
                self.assertEqual(self.is_open(0), expected, error)

    def test_open(self) -> None:
        """While it is open a call is refused with the time that is left, and no call is let through."""
        self.opened()
        for now, left in ((0.0, 5.0), (1.5, 3.5), (4.9, 0.1)):
            error = self.assertRaises(CircuitOpen, self.circuit.begin, now)
            self.assertEqual((error.service, error.seconds), ("service", left))
        self.assertEqual(str(error), "calls of 'service' fail too often: no call is made for the next 0.1 s")

    def test_probe(self) -> None:
        """Then one call goes through, others fail meanwhile; it closes if that succeeds, and else stays open."""
        self.opened()
        probe = self.circuit.begin(5)
        self.assertRaises(CircuitOpen, self.circuit.begin, 5)
        self.circuit.ended(probe, LATE, 6)
        self.assertRaises(CircuitOpen, self.circuit.begin, 10.9)
        probe = self.circuit.begin(11)
        self.circuit.ended(probe, RemoteError("ValueError", "it answers"), 11)
        for _ in range(3):
            self.call(11, LATE)
        self.assertFalse(self.is_open(11))  # it counts anew
        self.call(11, LATE)
        self.assertTrue(self.is_open(11))

    def test_observers(self) -> None:
        """Observers are told each time that its state is another."""
        told = hearing(self, "circuit_changed")
        self.opened()
        self.circuit.ended(self.circuit.begin(5), LATE, 6)
        probe = self.circuit.begin(11)
        self.circuit.unknown(probe, 12)
        self.circuit.ended(self.circuit.begin(12), None, 13)
        self.call(14)
        states = ["open", "half-open", "open", "half-open", "closed"]
        self.assertEqual(told.told, [("circuit_changed", "service", state) for state in states])

    def test_probe_without_end(self) -> None:
        """A probe that does not end keeps no other away for longer than the first was waited for."""
        self.opened()
        self.circuit.begin(5)
        self.assertRaises(CircuitOpen, self.circuit.begin, 9.9)
        self.circuit.ended(self.circuit.begin(10), None, 10)
        self.assertFalse(self.is_open(10))

    def test_probe_that_says_nothing(self) -> None:
        """If the probe is cancelled, the next call is one."""
        self.opened()
        self.circuit.unknown(self.circuit.begin(5), 5.5)
        self.circuit.ended(self.circuit.begin(5.5), None, 6)
        self.assertFalse(self.is_open(6))

    def test_calls_of_before(self) -> None:
        """A call that began before it opened neither closes it nor opens it again."""
        before = [self.circuit.begin(0) for _ in range(9)]
        self.opened()
        self.circuit.ended(before[0], None, 5)
        self.assertTrue(self.is_open(4))
        self.circuit.ended(self.circuit.begin(5), None, 5)
        for turn in before:
            self.circuit.ended(turn, LATE, 5)
        self.assertFalse(self.is_open(5))

    def test_told(self) -> None:
        """The log has a line when it opens and one when it closes; a probe that fails has none."""
        with capturedLogs() as events:
            self.opened()
            self.circuit.ended(self.circuit.begin(5), LATE, 5)
            self.circuit.ended(self.circuit.begin(10), None, 10)
        self.assertEqual(
            [formatEvent(each) for each in events],
            [
                "4 of the last 4 calls of 'service' have failed: from now on they fail at once, except for one every"
                " 5 s",
                "'service' has answered after 10 s: it is called again",
            ],
        )

    def test_bounded(self) -> None:
        """However many calls there are, a few numbers are kept; and of however many services, a thousand."""
        for number in range(10_000):
            self.call(number / 100, LATE if number % 5 == 4 else None)
        self.assertLessEqual(len(self.circuit.counts), 10)
        circuits = Circuits()
        kept = circuits.of("kept", POLICY)
        for number in range(2 * CIRCUITS_MAX):
            circuits.of(f"s{number}", POLICY)
            self.assertIs(circuits.of("kept", POLICY), kept)
        self.assertEqual(len(circuits.circuits), CIRCUITS_MAX)
        self.assertIsNot(circuits.of("kept", CircuitBreaker(minimum=5)), kept)


class WrittenTests(SynchronousTestCase):
    """Policies as arguments and in a configuration."""

    def test_refused(self) -> None:
        """Values that can't be are refused, in a line with the name and the value."""
        numbers: tuple[Any, ...] = (float("nan"), float("inf"), None, "1", True, [], -1, 0)
        table: list[tuple[str, tuple[Any, ...]]] = [
            ("failures", (*numbers, 1.1)),
            ("window", (*numbers, 1e9)),
            ("minimum", (*numbers, 1.5, 10**9)),
            ("open_for", (*numbers, 1e9)),
            ("on", ((), None, "ValueError", [1])),
        ]
        for name, values in table:
            for value in values:
                with self.assertRaises(ConfigurationError, msg=f"{name}={value!r}") as caught:
                    CircuitBreaker(**{name: value})
                self.assertRegex(str(caught.exception), rf"^CircuitBreaker\({name}=.*\): .+$")

    def test_written(self) -> None:
        """A configuration has a policy for all, and for single services others, on top of it, or none."""
        both = Breakers.written({"window": 3, "on": "OSError", "services": {"a": {"minimum": 2}, "b": False}})
        assert both is not None
        general = CircuitBreaker(window=3, on=OSError)
        alone = CircuitBreaker(window=3, minimum=2, on=OSError)
        self.assertEqual([both.of(name) for name in "abc"], [alone, None, general])
        some = Breakers.written({"services": {"a": {"minimum": 2}}})
        assert some is not None
        self.assertEqual([some.of(name) for name in "ab"], [CircuitBreaker(minimum=2), None])
        nothing: list[Any] = [None, {}]
        self.assertEqual([Breakers.written(written) for written in nothing], [None, None])

    def test_wrong(self) -> None:
        """A mistake in it is told in a line that begins with the key, or with the argument."""
        for written in (
            {"on": "NoError"},
            {"on": "os.path"},
            {"window": -1},
        ):
            error = self.assertRaises(ConfigurationError, Breakers.written, written)
            self.assertRegex(str(error), r"^(CIRCUIT_BREAKER: |CircuitBreaker\()[^\n]+$")
