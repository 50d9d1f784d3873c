"""The benchmark's figures are made rightly of its samples, and its stopwatches and its raw wire read right."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import environment, late, load, micro, report
from benchmarks.__main__ import before_and_after
from benchmarks.growth import GROWTH
from benchmarks.measure import Bench
from benchmarks.peers import contract, rawwire
from benchmarks.report import Result
from benchmarks.rows import BESIDE, Row
from txservices.observers import observers


def no_measure(bench: object) -> dict[str, float]:
    raise AssertionError("nothing is measured here")


def row(**changes: object) -> Row:
    entries = {"txservices": no_measure, "peer": no_measure, "other": no_measure}
    return Row(**{"name": "row", "title": "a row", "unit": "calls/s", "entries": entries, **changes})


def result(of: Row, **samples: list[float]) -> Result:
    return Result(of, {entry: [{of.figure: value} for value in values] for entry, values in samples.items()}, {})


class Ratios(SynchronousTestCase):
    """A ratio above 1 is to our credit, whichever way the figure goes."""

    def test_more_is_better(self) -> None:
        """Medians are compared: one round gone wrong does not count."""
        found = result(row(required={"peer": 2.5}), txservices=[290, 300, 9], peer=[100, 90, 110])
        self.assertAlmostEqual(found.ratio("peer"), 2.9)
        self.assertTrue(found.reached("peer"))

    def test_less_is_better(self) -> None:
        """Half of the time is twice as good."""
        found = result(row(more=False, required={"peer": 2.5}), txservices=[1.0], peer=[2.0])
        self.assertEqual(found.ratio("peer"), 2.0)
        self.assertIs(found.reached("peer"), False)

    def test_nothing_required(self) -> None:
        """Where nothing is required, nothing is reached or missed."""
        self.assertIsNone(result(row(), txservices=[1], peer=[1]).reached("peer"))

    def test_failed(self) -> None:
        """A peer that failed has no ratio, and the summary says so."""
        found = result(row(required={"peer": 2.0}), txservices=[1], peer=[])
        self.assertIsNone(found.ratio("peer"))
        self.assertIn("failed", report.summary([found])[-1])
        self.assertIn("failed", "\n".join(report.lines(found)))

    def test_growth(self) -> None:
        """Of growing sizes only those are compared of which something is required."""
        found = result(row(grows=True, required={"peer": 0.8}, ours="txservices"), txservices=[1], peer=[1], other=[9])
        self.assertEqual((found.ratio("peer"), found.ratio("other")), (1.0, None))


class Tables(SynchronousTestCase):
    """The tables of the report."""

    def test_lines(self) -> None:
        """A row has its median, its spread, the ratio, what is required, and whether it is reached."""
        found = result(row(required={"peer": 2.0}), txservices=[3000, 2000, 2500], peer=[1250], other=[0.5])
        self.assertEqual(
            [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.lines(found)[4:-1]],
            [
                ["txservices", "2,500", "2,000 to 3,000", "", "", ""],
                ["peer", "1,250", "1,250 to 1,250", "2.00", "2.00", "reached"],
                ["other", "0.5", "0.5 to 0.5", "5000.00", "", ""],
            ],
        )

    def test_every_requirement(self) -> None:
        """Whoever something is required against is measured in that row, and ours is."""
        for each in [*BESIDE, *GROWTH]:
            self.assertLessEqual({each.ours, *each.required}, set(each.entries), each.name)

    def test_names(self) -> None:
        """A row can be asked for by its name."""
        names = [each.name for each in [*BESIDE, *GROWTH]]
        self.assertEqual(len(names), len(set(names)))


class Before(SynchronousTestCase):
    """A row beside another checkout of ours."""

    def test_each_in_its_own(self) -> None:
        """The entry `before` runs the other checkout with its own interpreter, and ours is back after it."""
        seen: list[tuple[str, str]] = []

        def measure(bench: object) -> dict[str, float]:
            seen.append((str(environment.ours_folder()), environment.ours_python()))
            return {}

        compared = before_and_after(row(entries={"txservices": measure, "peer": no_measure}), Path("other"))
        for entry in ("before", "txservices"):
            compared.entries[entry](Bench(None, 1))  # no broker is needed
        self.assertEqual(list(compared.entries), ["txservices", "before"])
        self.assertEqual(seen[0], ("other", str(Path("other", ".venv", "bin", "python"))))
        self.assertEqual(seen[1], (str(environment.ROOT), sys.executable))


class Turns(SynchronousTestCase):
    """How often, or how long."""

    def test_times(self) -> None:
        """A number is that many turns, each time anew."""
        turns = contract.amount("3")
        self.assertEqual([len(list(turns())), len(list(turns()))], [3, 3])

    def test_seconds(self) -> None:
        """Seconds are a time after which there are no more."""
        self.assertEqual(list(contract.amount("0s")()), [])


class RawBytes(SynchronousTestCase):
    """Frames and answers, however they arrive."""

    def test_frames(self) -> None:
        """Frames are found in whatever pieces they come."""
        data = rawwire.message("benchmark.echo", b"{}", "reply", rawwire.stack_header(2)) + rawwire.ack(7, 1)
        wire = rawwire.Wire.__new__(rawwire.Wire)
        wire.rest = b""
        found: list[Any] = []
        for position in range(len(data)):
            found += wire.parse(wire.rest + data[position : position + 1])
        self.assertEqual([kind for kind, _ in found], [1, 2, 3, 1])
        self.assertEqual(found[-1][1][:4], rawwire.ACK)
        self.assertEqual(wire.rest, b"")

    def test_answers(self) -> None:
        """An answer is whole when its length has come; the next is taken to be as long."""
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        answers = load.Answers()
        self.assertEqual([answers.whole(answer[:9]), answers.whole(answer[9:-1]), answers.whole(b"}")], [0, 0, 1])
        self.assertTrue(answers.whole(answer))

    def test_refused(self) -> None:
        """Anything but 200 ends the measurement."""
        self.assertRaises(RuntimeError, load.Answers().whole, b"HTTP/1.1 404 NOT FOUND\r\n\r\n")


class Steps(SynchronousTestCase):
    """The single steps of the hot path."""

    def setUp(self) -> None:
        self.patch(observers, "containers", [])  # the rows have services that run for as long as the process

    def test_every_row(self) -> None:
        """Each row can be measured: a figure for our way, and one for the plain way where there is one."""
        rows = micro.rows()
        self.assertEqual(len({row.name for row in rows}), len(rows))
        for row in rows:
            cells = [cell.strip() for cell in micro.line(row, seconds=0).split("|")[1:-1]]
            self.assertEqual(len(cells), 5, row.name)
            self.assertGreater(float(cells[2].replace(",", "")), -1, row.name)
            self.assertEqual(bool(cells[4]), bool(row.plain), row.name)

    def test_the_same_done(self) -> None:
        """Where both ways give a value, it is the same: else the comparison would say nothing."""
        rows = {row.name: row for row in micro.rows()}
        for name in ("json-in", "ack-out", "ack-in", "deliver-in", "properties-out", "properties-in", "content-out"):
            self.assertEqual(rows[name].call(), rows[name].other(), name)
        self.assertEqual(rows["web-text"].call(), rows["web-text"].other())


class LateTests(SynchronousTestCase):
    """How late messages came, of a trace that RabbitMQ has written."""

    def test_measured(self) -> None:
        """Each message counts from its delay queue to its handler, each time; other messages do not count."""
        lines = []

        def event(kind: str, at: str, key: str, message_id: str = "one", delay: float = 2, **headers: Any) -> None:
            payload = base64.b64encode(json.dumps({"delay": delay}).encode()).decode()
            properties = {"message_id": message_id, "headers": headers}
            timestamp = f"2026-11-27T00:36:{at}+00:00"
            lines.append(
                {"type": kind, "timestamp": timestamp, "routing_keys": [key], "payload": payload}
                | {"properties": properties}
            )

        event("published", "01.100", "txservices.delay.2s.benchmark.events.late")
        event("published", "01.200", "other", "two")
        event("received", "01.201", "other", "two")
        event("received", "03.103", "late")
        event("published", "03.105", "txservices.delay.2s.evt", **{"txservices-attempt": 2})
        event("received", "05.095", "evt", **{"txservices-attempt": 2})
        path = self.mktemp()
        Path(path).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        rows = list(late.measured(path))
        self.assertEqual([(how, delay) for how, delay, _ in rows], [(late.SENT, 2), (late.AGAIN, 2)])
        self.assertAlmostEqual(rows[0][2], 0.003)
        self.assertAlmostEqual(rows[1][2], -0.010)
        self.assertIn(f"| 2 | {late.SENT}, 1 | 0.003 | 0.003 | 0.003 | 0.400 |", late.table(rows))
