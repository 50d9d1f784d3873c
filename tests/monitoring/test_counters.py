"""Counters know how often and how long, over the latest seconds, in little memory."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txservices.monitoring.answering import EVENTS_MAX, Events
from txservices.monitoring.counters import EDGES_MAX, SLOTS, Counter, Counting, merged, time_of, window_of


class Counters(SynchronousTestCase):
    """One counter at a time."""

    def test_rates(self) -> None:
        """Rates are over the latest seconds, or since counting began if that is less; what is older is only counted."""
        counter = Counter(100.5)
        for tenth in range(20):
            counter.add(100.5 + tenth / 10, 0.001, tenth % 4 == 0)
        counts = counter.counts(102.5, window_of(100.5, 102.5))
        self.assertEqual((counts["count"], counts["errors"]), (20, 5))
        self.assertEqual((counts["rate"], counts["error_rate"]), (10.0, 2.5))
        counts = counter.counts(109.9, window_of(100.5, 109.9))
        self.assertEqual(counts["count"], 20)
        self.assertAlmostEqual(counts["rate"], 20 / 9.4)
        counts = counter.counts(111.0, window_of(100.5, 111.0))  # what was before second 102 is forgotten
        self.assertAlmostEqual(counts["rate"], 5 / 9)
        counts = counter.counts(500.0, window_of(100.5, 500.0))
        self.assertEqual((counts["count"], counts["rate"], counts["p99"], counts["times"]), (20, 0.0, None, {}))

    def test_nothing_yet(self) -> None:
        """In the moment in which counting begins there is no rate."""
        counter = Counter(100.0)
        self.assertEqual(window_of(100.0, 100.0), 0.0)
        counter.add(100.0, 0.1, True)
        counts = counter.counts(100.0, 0.0)
        self.assertEqual((counts["rate"], counts["error_rate"], counts["count"]), (0.0, 0.0, 1))

    def test_times(self) -> None:
        """A time is known within 7 %, from microseconds to days."""
        for seconds in (0.000001, 0.00001234, 0.001, 0.0625, 0.4999, 0.5, 0.999, 1.0, 3.7, 60.0, 86_400.0):
            counter = Counter(0.0)
            counter.add(0.0, seconds, False)
            counts = counter.counts(0.0, 1.0)
            for known in (counts["p50"], counts["p99"]):
                self.assertLess(abs((known or 0) / seconds - 1), 0.07, seconds)

    def test_times_that_can_not_be(self) -> None:
        """A time of zero, or below it where a clock was set back, counts as the shortest."""
        counter = Counter(0.0)
        for seconds in (0.0, -5.0):
            counter.add(0.0, seconds, False)
        self.assertLess(counter.counts(0.0, 1.0)["p99"] or 1, 0.0000011)

    def test_quantiles(self) -> None:
        """Half took no longer than p50, and 99 of 100 no longer than p99."""
        random, counter = Random(4), Counter(0.0)
        times = [random.lognormvariate(-6, 1) for _ in range(10_000)]
        for seconds in times:
            counter.add(0.0, seconds, False)
        counts, ordered = counter.counts(0.0, 1.0), sorted(times)
        self.assertLess(abs((counts["p50"] or 0) / ordered[5000] - 1), 0.08)
        self.assertLess(abs((counts["p99"] or 0) / ordered[9900] - 1), 0.08)

    def test_memory(self) -> None:
        """However many it counts, and however different they are, it keeps some hundred numbers a second."""
        random, counter = Random(4), Counter(0.0)
        for number in range(50_000):
            counter.add(number / 1000, 10 ** random.uniform(-6, 3), False)
        self.assertEqual(len(counter.slots), SLOTS)
        self.assertLess(max(map(len, counter.slots)), 260)

    def test_clock_of_long_ago(self) -> None:
        """A pause of any length costs no more than the slots that there are."""
        counter = Counter(0.0)
        counter.add(0.0, 0.1, True)
        counter.add(1e12, 0.1, True)
        counts = counter.counts(1e12, 9.5)
        self.assertEqual((counts["count"], sum(counts["times"].values())), (2, 1))

    def test_merged(self) -> None:
        """The counts of several processes together are what one process would have counted."""
        random, counters, alone = Random(4), [Counter(0.0) for _ in range(3)], Counter(0.0)
        for number in range(1000):
            seconds = random.lognormvariate(-6, 1)
            counters[number % 3].add(0.5, seconds, number % 10 == 0)
            alone.add(0.5, seconds, number % 10 == 0)
        together, one = merged(each.counts(1.0, 1.0) for each in counters), alone.counts(1.0, 1.0)
        self.assertAlmostEqual(together.pop("rate"), one.pop("rate"))
        self.assertAlmostEqual(together.pop("error_rate"), one.pop("error_rate"))
        self.assertEqual(together, one)

    def test_merged_with_rubbish(self) -> None:
        """Ranges that no process writes count for nothing."""
        one = Counter(0.0)
        one.add(0.0, 0.1, False)
        good = one.counts(0.0, 1.0)
        times = {**good["times"], "x": 1, "9" * 5000: 1, "99999": 1, "": 1, "4": -3}
        self.assertEqual(merged([{**good, "times": times}]), good)
        self.assertEqual(merged([])["p50"], None)

    def test_ranges(self) -> None:
        """The middle of a range of times grows with its number, and doubles in eight."""
        middles = [time_of(step) for step in range(-160, 80)]
        self.assertEqual(middles, sorted(set(middles)))
        self.assertEqual(time_of(8), 2 * time_of(0))


class Names(SynchronousTestCase):
    """A process remembers only so many of the names that strangers may make up."""

    def test_calls(self) -> None:
        """So many methods of others are counted; calls of those go on being counted, and those of further ones not."""
        connections = object()
        counting = Counting({}, object(), connections)
        client = SimpleNamespace(name="shop", connections=connections)
        for number in (*range(EDGES_MAX + 50), 0):
            counting.call_ended(SimpleNamespace(client=client, service="s", name=f"s.m{number}"), "ok", 0.1, None)
        edges = counting.edges(counting.since + 1)
        self.assertEqual(len(edges), EDGES_MAX)
        self.assertEqual((edges[0]["service"], edges[0]["target"], edges[0]["method"]), ("shop", "s", "m0"))
        self.assertEqual((edges[0]["count"], edges[1]["count"]), (2, 1))

    def test_calls_of_others(self) -> None:
        """Calls by other connections are not those of the process's services."""
        counting = Counting({}, object(), object())
        client = SimpleNamespace(name="shop", connections=object())
        counting.call_ended(SimpleNamespace(client=client, service="s", name="s.m"), "ok", 0.1, None)
        self.assertEqual(counting.edges(counting.since + 1), [])

    def test_events(self) -> None:
        """So many types of events are known to have been told, of the process's services alone."""
        events = Events({}, ["shop"])
        for number in range(EVENTS_MAX + 50):
            events.event_dispatched("shop", f"sold {number}")
            events.event_dispatched("stock", f"sold {number}")
        self.assertEqual(len(events.told), EVENTS_MAX)
        self.assertEqual({service for service, _ in events.told}, {"shop"})
