"""The report of what was found, as text and as JSON. Pure."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator

from txservices.migration.checking.findings import TITLES, Group, Report, edited

NO_NEWLINE = "\\ No newline at end of file"  # as diff and patch say it

# The exit status for the worst group: 1 and 2 say that the command itself has failed.
STATUS = {Group.AS_IT_IS: 0, Group.WITH_NAMEKO: 0, Group.CHANGE: 3, Group.CANNOT: 4}


def lines(reports: Iterable[Report]) -> Iterator[str]:
    """The report as text: a line a finding, by file, and a summary."""
    reports = list(reports)
    for report in reports:
        if report.findings:
            yield f"{report.path}: {TITLES[report.group]}"
            for each in report.findings:
                yield f"  {each.line}: {each.text}" + ("" if each.group is report.group else f" ({TITLES[each.group]})")
    counts = Counter(report.group for report in reports)
    summary = ", ".join(f"{counts[group]} {TITLES[group]}" for group in Group if counts[group])
    yield f"{len(reports)} files: {summary}" if reports else "no Python files there"


def as_json(reports: Iterable[Report]) -> str:
    """The report as a JSON object, with the groups by their names."""
    reports = list(reports)
    files = [
        {
            "path": report.path,
            "group": report.group.name.lower(),
            "findings": [
                {"line": each.line, "group": each.group.name.lower(), "kind": each.kind, "text": each.text}
                for each in report.findings
            ],
            "edits": len(report.edits),
        }
        for report in reports
    ]
    counts = Counter(report.group.name.lower() for report in reports)
    summary = {group.name.lower(): counts[group.name.lower()] for group in Group}
    return json.dumps({"files": files, "summary": summary}, indent=2, ensure_ascii=False)


def worst(reports: Iterable[Report]) -> Group:
    """The worst group of all."""
    return max((report.group for report in reports), default=Group.AS_IT_IS)


def diff(report: Report, source: str) -> str:
    """The edits of a file as a unified diff; empty if there are none."""
    new = edited(source, report.edits)
    pieces = difflib.unified_diff(
        source.splitlines(keepends=True), new.splitlines(keepends=True), report.path, report.path
    )
    return "".join(piece if piece.endswith("\n") else f"{piece}\n{NO_NEWLINE}\n" for piece in pieces)
