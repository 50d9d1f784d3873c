"""Makes medians, ratios and verdicts of samples, and writes them as Markdown and as data for the chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import Any

from benchmarks.measure import Figures
from benchmarks.rows import Row

NOTHING = ""
QUICK = "**A quick look only**: of the numbers in backlogs and waiting calls a small part was used."
CHAPTERS = {False: "Beside the peers", True: "How cost grows"}


@dataclass
class Result:
    """A row with the samples of its entries, one a round, and the reason of each entry that failed."""

    row: Row
    samples: dict[str, list[Figures]]
    failures: dict[str, str]

    def values(self, entry: str, figure: str = "") -> list[float]:
        return [sample[figure or self.row.figure] for sample in self.samples.get(entry, [])]

    def median(self, entry: str, figure: str = "") -> float | None:
        values = self.values(entry, figure)
        return median(values) if values else None

    def ratio(self, entry: str) -> float | None:
        if self.row.grows and entry not in self.row.required:
            return None  # small ones cost less a piece, as everybody knows
        ours, theirs = self.median(self.row.ours), self.median(entry)
        return self.row.ratio(ours, theirs) if ours and theirs and entry != self.row.ours else None

    def reached(self, entry: str) -> bool | None:
        """Whether the target is reached. None if there is no target."""
        ratio, required = self.ratio(entry), self.row.required.get(entry)
        return ratio >= required if ratio is not None and required is not None else None


def lines(result: Result) -> list[str]:
    """A row as a Markdown table, its columns padded so that it reads as well on a terminal."""
    row = result.row
    head = [NOTHING, row.unit, "least to most", *row.also.values(), "ratio", "required", NOTHING]
    body = [cells(result, entry) for entry in row.entries]
    return [f"### {row.name}: {row.title}", NOTHING, *table([head, *body]), NOTHING]


def cells(result: Result, entry: str) -> list[str]:
    row = result.row
    middle, values = result.median(entry), result.values(entry)
    if middle is None:
        return [entry, "failed", *[NOTHING] * (len(row.also) + 4)]
    also = [number(result.median(entry, figure)) for figure in row.also]
    ratio, required, reached = result.ratio(entry), row.required.get(entry), result.reached(entry)
    return [
        entry,
        number(middle),
        f"{number(min(values))} to {number(max(values))}",
        *also,
        NOTHING if ratio is None else f"{ratio:.2f}",
        NOTHING if required is None else f"{required:.2f}",
        {None: NOTHING, True: "reached", False: "**missed**"}[reached],
    ]


def number(value: float | None) -> str:
    """The number with three significant digits."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(cells: list[list[str]]) -> list[str]:
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    head, *body = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    rule = " | ".join("-" * width for width in widths)
    return [f"| {line} |" for line in (head, rule, *body)]


def summary(results: Iterable[Result]) -> list[str]:
    """Every requirement in one table."""
    found = [["row", "against", "ratio", "required", NOTHING]]
    for result in results:
        for entry, required in result.row.required.items():
            ratio, reached = result.ratio(entry), result.reached(entry)
            verdict = {None: "failed", True: "reached", False: "**missed**"}[reached]
            found.append(
                [result.row.name, entry, NOTHING if ratio is None else f"{ratio:.2f}", f"{required:.2f}", verdict]
            )
    return table(found)


def markdown(results: list[Result], about: dict[str, Any]) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = [
        "# txservices beside its peers",
        NOTHING,
        f"{about['date']}, {about['machine']}. Rounds: {about['rounds']}, interleaved; {about['seconds']:g} s a"
        " measurement; medians. One RabbitMQ, one service process and one caller process each, all on this machine.",
        "A ratio above 1 is to the credit of txservices.",
        *([QUICK] if about["scale"] < 1 else []),
        NOTHING,
        f"Versions: {versions}.",
        NOTHING,
        "How each is set up is said in its file in `benchmarks/peers/`.",
        NOTHING,
        "![the figures as bars](results.png)",
        NOTHING,
    ]
    if any(result.row.required for result in results):
        text += ["## What must be reached", NOTHING, *summary(results), NOTHING]
    for grows, chapter in CHAPTERS.items():
        tables = [lines(result) for result in results if result.row.grows == grows]
        text += [f"## {chapter}", NOTHING, *chain(*tables)] if tables else []
    return "\n".join(text)


def data(results: list[Result], about: dict[str, Any]) -> dict[str, Any]:
    """All samples, for the chart and for a comparison of two runs."""
    rows = [
        {
            "name": result.row.name,
            "title": result.row.title,
            "unit": result.row.unit,
            "figure": result.row.figure,
            "ours": list(result.row.entries) if result.row.grows else [result.row.ours],
            "samples": result.samples,
        }
        for result in results
    ]
    return {"about": about, "rows": rows}
