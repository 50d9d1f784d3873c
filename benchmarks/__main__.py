"""`python -m benchmarks`: measures, prints, and writes the results. The package's docstring says what is where."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import environment, load, report
from benchmarks.growth import GROWTH
from benchmarks.measure import Bench, Figures
from benchmarks.report import Result
from benchmarks.rows import BESIDE, Row
from tests import rabbitmq

ROWS = {row.name: row for row in [*BESIDE, *GROWTH]}
RESULTS = environment.FOLDER / "results"
TIMED = ["rpc-1", "rpc-50", "rpc-200", "http-get", "http-post"]  # rows whose services' processor time is taken
QUICK = {"rounds": 1, "seconds": 0.5, "scale": 0.02}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="txservices beside its peers")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all if none is named: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything runs")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout, instead of the peers")
    parser.add_argument("--reactor", metavar="NAME", help="our services on another reactor, instead of the peers")
    parser.add_argument("--results", type=Path, help=f"write there; a whole run is written to {RESULTS} by itself")
    chosen = parser.parse_args()
    if unknown := set(chosen.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}: there are {', '.join(ROWS)}")
    if chosen.before and not (chosen.before / ".venv").exists():
        parser.error(f"{chosen.before} has no environment: run `make .venv/installed` there")
    if chosen.reactor and not set(chosen.rows) <= set(TIMED):
        parser.error(f"--reactor is for the rows {', '.join(TIMED)}")
    if rabbitmq.MISSING:
        parser.error(rabbitmq.MISSING)
    return chosen


def measure(rows: list[Row], bench: Bench, rounds: int) -> list[Result]:
    """Measure each entry of each row once a round, so that other work of the machine slows all of them alike."""
    results = [Result(row, {entry: [] for entry in row.entries}, {}) for row in rows]
    for number in range(rounds):
        for result in results:
            for entry in turned(list(result.row.entries), number):
                measure_one(result, entry, bench, f"{number + 1}/{rounds}")
    return results


def before_and_after(row: Row, folder: Path) -> Row:
    """The same row, with another checkout in place of the peers."""
    ours = row.entries[row.ours]

    def before(bench: Bench) -> Figures:
        with environment.checkout(folder):
            return ours(bench)

    return replace(row, entries={row.ours: ours, "before": before}, required={})


def on_reactors(row: Row, name: str) -> Row:
    """The same row, with our services on another reactor in place of the peers."""
    ours = row.entries[row.ours]

    def on_another(bench: Bench) -> Figures:
        os.environ["BENCHMARK_REACTOR"] = name
        try:
            return ours(bench)
        finally:
            del os.environ["BENCHMARK_REACTOR"]

    entries = {row.ours: ours, f"{name} reactor": on_another}
    # in processor time, which other work of the machine changes less than the rate
    return replace(row, entries=entries, required={}, figure="processor", unit="us of processor time", more=False)


def turned(entries: list[str], by: int) -> list[str]:
    """Each round begins with another entry, so that no entry always follows the heaviest."""
    by %= len(entries)
    return [*islice(entries, by, None), *entries[:by]]


def measure_one(result: Result, entry: str, bench: Bench, round_number: str) -> None:
    row = result.row
    try:
        figures = row.entries[entry](bench)
    except Exception as error:  # a failure is reported, and the others are measured all the same
        result.failures[entry] = f"{row.name}, {entry}: {type(error).__name__}: {error}"
        bench.vhosts.clear()  # the next entry would count the messages left in its queues
        said = f"failed: {error}"
    else:
        result.samples[entry].append(figures)
        said = f"{report.number(figures[row.figure])} {row.unit}"
    print(f"{round_number}  {row.name:16}{entry:24}{said}", file=sys.stderr, flush=True)


def write(results: list[Result], about: dict[str, Any], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(report.data(results, about), indent=1) + "\n")
    (folder / "results.md").write_text(report.markdown(results, about) + "\n")
    chart = [environment.peers_python(), "-m", "benchmarks.chart", "results.json", "results.png"]
    draw = [*chart[:3], str(folder / chart[3]), str(folder / chart[4])]
    subprocess.run(draw, check=True, cwd=environment.ROOT)
    print(f"written: {folder}")


def main() -> None:
    chosen = options()
    rounds, seconds, scale = (
        (QUICK["rounds"], QUICK["seconds"], QUICK["scale"]) if chosen.quick else (chosen.rounds, chosen.seconds, 1.0)
    )
    environment.peers_python()
    bench = Bench(rabbitmq.Node("benchmark", erlang="").start(), seconds, scale)
    about = {
        "date": environment.today(),
        "machine": environment.machine(),
        "rounds": rounds,
        "seconds": seconds,
        "scale": scale,
        "versions": environment.versions(bench.node.ctl_now("version").strip(), load.name()),
    }
    rows = [ROWS[name] for name in chosen.rows] or list(ROWS.values())
    if chosen.before:
        rows = [before_and_after(row, chosen.before.resolve()) for row in rows if not row.grows]
    if chosen.reactor:
        rows = [on_reactors(row, chosen.reactor) for row in rows if row.name in TIMED]
    results = measure(rows, bench, int(rounds))
    print(report.markdown(results, about))
    partial = chosen.rows or chosen.quick or chosen.before or chosen.reactor
    if folder := chosen.results or (None if partial else RESULTS):
        write(results, about, folder)
    failures = [failure for result in results for failure in result.failures.values()]
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
