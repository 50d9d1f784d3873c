"""Draws results.png from results.json: bars of medians, with whiskers from least to most. It needs matplotlib.

python -m benchmarks.chart RESULTS.json CHART.png
"""

from __future__ import annotations

import json
import sys
from statistics import median
from textwrap import fill

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLUMNS = 3
WIDTH = 54  # characters of a title
OURS, THEIRS = "#2a6f97", "#b9c6ce"


def draw(axes, row) -> None:
    values = {entry: [sample[row["figure"]] for sample in found] for entry, found in row["samples"].items() if found}
    entries = list(values)[::-1]
    middle = [median(values[entry]) for entry in entries]
    spread = [
        [m - min(values[entry]) for m, entry in zip(middle, entries, strict=True)],
        [max(values[entry]) - m for m, entry in zip(middle, entries, strict=True)],
    ]
    colours = [OURS if entry in row["ours"] else THEIRS for entry in entries]
    bars = axes.barh(entries, middle, xerr=spread, color=colours, error_kw={"elinewidth": 0.8, "capsize": 2})
    labels = [f" {m:,.0f}" if m >= 100 else f" {m:.3g}" for m in middle]
    axes.bar_label(bars, labels=labels, padding=6, fontsize=8)
    axes.margins(x=0.22)
    axes.set_title(fill(f"{row['name']}: {row['title']}", WIDTH), fontsize=9, loc="left")
    axes.set_xlabel(row["unit"], fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main(source: str, target: str) -> None:
    with open(source, encoding="utf-8") as file:
        results = json.load(file)
    rows = [row for row in results["rows"] if any(row["samples"].values())]
    lines = -(-len(rows) // COLUMNS)
    figure, grid = pyplot.subplots(lines, COLUMNS, figsize=(5.4 * COLUMNS, 2.6 * lines), squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    for axes, row in zip(grid.flat, rows, strict=False):
        draw(axes, row)
    about = results["about"]
    figure.suptitle(f"txservices beside its peers · {about['date']} · {about['machine']}", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
