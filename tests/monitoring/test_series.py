"""The numbers behind the metrics: buckets, labels, and the bound for the number of series."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txservices.monitoring.series import BOUNDS, LABEL_MAX, SERIES_MAX, Counter, Family, Histogram, SeriesOf, label_of

CALLS = Family("calls", "counter", "calls", ("caller", "called"), "Calls.", open=("called",))


class SeriesTests(SynchronousTestCase):
    """Counting."""

    def test_buckets(self) -> None:
        """A time counts in each bucket whose end it does not exceed, and beyond all ends in the last."""
        histogram = Histogram()
        for seconds in (0.0, 0.005, 0.0051, 10.0, 11.0):
            histogram.observe(seconds)
        buckets = dict(histogram.buckets())
        self.assertEqual(list(buckets), [*map(str, BOUNDS), "+Inf"])
        found = [buckets[end] for end in ("0.005", "0.01", "7.5", "10.0", "+Inf")]
        self.assertEqual((found, histogram.sum), ([2, 3, 3, 4, 5], 21.0101))

    def test_known(self) -> None:
        """A series is known by its key; the same labels under another key are the same series."""
        calls = SeriesOf(CALLS, Counter)
        first = calls.add("key", "a", "b")
        self.assertIs(calls.known["key"], first)
        self.assertIs(calls.add("another", "a", "b"), first)
        self.assertEqual(list(calls.all), [("a", "b")])

    def test_bound(self) -> None:
        """Names beyond the bound are one series for each of the other labels, and no key is kept for ever."""
        calls = SeriesOf(CALLS, Counter)
        for number in range(SERIES_MAX * 3):
            calls.add(number, "a", f"made up {number}").value += 1
        calls.add("another", "b", "made up as well").value += 1
        self.assertEqual(len(calls.all), SERIES_MAX + 2)
        self.assertEqual(calls.all["a", "other"].value, SERIES_MAX * 2)
        self.assertEqual(calls.all["b", "other"].value, 1)
        self.assertLessEqual(len(calls.known), SERIES_MAX)
        self.assertEqual(calls.add("known before", "a", "made up 1").value, 1)

    def test_labels(self) -> None:
        """A label is text that can be written and shown, and not long."""
        table = {
            "orders": "orders",
            7: "7",
            "<script>": "<script>",
            "a\x1b[31mb\x00": "a\\x1b[31mb\\x00",
            "\udcff": "\\udcff",
            "x" * 1000: "x" * LABEL_MAX,
        }
        for value, label in table.items():
            self.assertEqual(label_of(value), label)
