"""Policies of retries: when the next attempt is, what is refused, and how a configuration writes one."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.amqp.delays import DELAY_MAX
from txservices.exceptions import ConfigurationError
from txservices.retry import Reject, Retry
from txservices.retry.configured import policy_for
from txservices.retry.policy import ATTEMPTS_MAX, GROWTH_MAX

NUMBERS: tuple[Any, ...] = (float("nan"), float("inf"), None, "1", True, [], -1)


class PolicyTests(SynchronousTestCase):
    """``Retry`` by itself."""

    def test_delays(self) -> None:
        """Each delay is longer than the one before by the factor, up to the longest."""
        policy = Retry(delay=1, growth=2, delay_max=5, jitter=0)
        self.assertEqual([policy.delay_before(number) for number in range(2, 8)], [1, 2, 4, 5, 5, 5])

    def test_jitter(self) -> None:
        """Chance makes a delay shorter or longer by a part of it, also the longest one."""
        policy = Retry(delay=10, growth=2, delay_max=20, jitter=0.1)
        chances = [0.0, 0.5, 1.0]
        delays = [[policy.delay_before(number, iter([chance]).__next__) for chance in chances] for number in (2, 3, 4)]
        self.assertEqual(delays, [[9, 10, 11], [18, 20, 22], [18, 20, 22]])

    def test_by_chance(self) -> None:
        """Delays of one attempt differ, so that messages which failed together come back apart."""
        policy = Retry(delay=10, jitter=0.5)
        delays = {policy.delay_before(2) for _ in range(100)}
        self.assertGreater(len(delays), 90)
        self.assertTrue(all(5 <= delay <= 15 for delay in delays))

    def test_no_overflow(self) -> None:
        """A growth that is beyond all numbers gives the longest delay, which jitter keeps within the broker's."""
        policy = Retry(attempts=1000, delay=1, growth=GROWTH_MAX, delay_max=DELAY_MAX, jitter=1)
        self.assertEqual(policy.delay_before(1000, lambda: 1.0), DELAY_MAX)

    def test_wants(self) -> None:
        """Errors that are listed are tried again, but for those given up on; a Retry always is, and a Reject never."""
        policy = Retry(on=(LookupError, OSError), give_up_on=KeyError)
        table = [
            (LookupError(), True),
            (IndexError(), True),
            (KeyError(), False),
            (ConnectionError(), True),
            (ValueError(), False),
            (Retry(after=1), True),
            (SystemExit(), False),
        ]
        for error, wanted in table:
            self.assertEqual(policy.wants(error), wanted, error)
        self.assertFalse(Retry().wants(SystemExit()))
        self.assertTrue(Retry().wants(Exception()))
        self.assertFalse(Retry().wants(Reject("why")))

    def test_refused(self) -> None:
        """Values that can't be are refused when the policy is made, in a line with the name and the value."""
        table: list[tuple[str, tuple[Any, ...]]] = [
            ("attempts", (*NUMBERS, 0, 2.0, ATTEMPTS_MAX + 1)),
            ("delay", (*NUMBERS, 301)),
            ("growth", (*NUMBERS, 0.99, 0, GROWTH_MAX + 1)),
            ("delay_max", (*NUMBERS, DELAY_MAX + 1)),
            ("jitter", (*NUMBERS, 1.01)),
            ("after", (*(each for each in NUMBERS if each is not None), DELAY_MAX + 1)),
            ("on", ((), None, "ValueError", [1], [ValueError, int], 5)),
            ("give_up_on", (None, "ValueError", [1], int)),
        ]
        for name, values in table:
            for value in values:
                with self.assertRaises(ConfigurationError, msg=f"{name}={value!r}") as caught:
                    Retry(**{name: value})
                self.assertRegex(str(caught.exception), rf"^Retry\({name}=.*\): .+$")

    def test_taken(self) -> None:
        """The least and the most of each value are taken."""
        Retry(attempts=1, delay=0, growth=1, delay_max=0, jitter=0)
        Retry(ATTEMPTS_MAX, DELAY_MAX, GROWTH_MAX, DELAY_MAX, 1, BaseException, (ValueError, KeyError), after=DELAY_MAX)

    def test_shown(self) -> None:
        """What a method raises says what it asks for."""
        self.assertEqual(
            [str(Retry()), str(Retry(after=30)), str(Reject("why"))],
            ["it asks for another attempt", "it asks for another attempt in 30 s", "why"],
        )


class WrittenTests(SynchronousTestCase):
    """``RETRY`` of a configuration."""

    def test_for_all(self) -> None:
        """Arguments without a method's name are for all methods."""
        policy = policy_for({"attempts": 3, "delay": 2, "on": "OSError", "give_up_on": ["KeyError"]}, "a.b")
        assert policy is not None
        self.assertEqual((policy.attempts, policy.delay, policy.growth), (3, 2, 2))
        self.assertEqual((policy.on, policy.give_up_on), ((OSError,), (KeyError,)))

    def test_for_one(self) -> None:
        """Those below a method's name go over the ones for all, for that method alone."""
        written = {"attempts": 3, "delay": 2, "a.b": {"attempts": 9}, "a.c": False, "a.d": None}
        found = {name: policy_for(written, name) for name in ("a.b", "a.c", "a.d", "a.e")}
        numbers = {name: policy and (policy.attempts, policy.delay) for name, policy in found.items()}
        self.assertEqual(numbers, {"a.b": (9, 2), "a.c": None, "a.d": None, "a.e": (3, 2)})

    def test_for_one_alone(self) -> None:
        """If only some methods are named, the others have no policy."""
        written: Any = {"a.b": {"attempts": 9}}
        self.assertIsNone(policy_for(written, "a.c"))
        self.assertIsNotNone(policy_for(written, "a.b"))

    def test_nothing(self) -> None:
        """Nothing written is no policy."""
        nothing: list[Any] = [None, {}]
        self.assertEqual([policy_for(written, "a.b") for written in nothing], [None] * 2)

    def test_own_exceptions(self) -> None:
        """An exception of the user's own is found by its dotted name."""
        policy = policy_for({"on": "txservices.exceptions.RpcTimeout"}, "a.b")
        assert policy is not None
        self.assertEqual([each.__name__ for each in policy.on], ["RpcTimeout"])

    def test_mistakes(self) -> None:
        """Each mistake is a line that names it, also where it is in another method's policy."""
        table: list[tuple[Any, str]] = [
            ({"attempts": 0}, r"RETRY: Retry\(attempts=0\)"),
            ({"a.c": {"growth": 0}}, r"RETRY: a.c: Retry\(growth=0\)"),
            ({"on": "Nothing"}, "RETRY: there is no exception 'Nothing'"),
            ({"on": "no.such.Error"}, "RETRY: there is no exception 'no.such.Error'"),
            ({"on": "json.dumps"}, "RETRY: 'json.dumps' is no class of exceptions"),
            ({"on": [5]}, "RETRY: there is no exception 5"),
            ({"give_up_on": "int"}, "RETRY: 'int' is no class of exceptions"),
            ({"give_up_on": 5}, "RETRY: there is no exception 5"),
            ({True: [5]}, "RETRY: there is no exception 5"),  # YAML reads the word on as true
            ({"delay": 301}, "RETRY: Retry.delay=301.: give a number from 0 to 300, which is delay_max"),
            ({"delay_max": 5e6}, r"RETRY: Retry\(delay_max=5000000.0\): give a number from 0 to 4,000,000$"),
        ]
        for written, line in table:
            with self.assertRaises(ConfigurationError, msg=written) as caught:
                policy_for(written, "a.b")
            self.assertRegex(str(caught.exception), f"^{line}")
