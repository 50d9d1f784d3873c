"""What is found in a file, in four groups. Pure."""

from __future__ import annotations

from enum import IntEnum

from attrs import Factory, define, frozen


class Group(IntEnum):
    """How much a thing wants, from nothing to what can't be done."""

    AS_IT_IS = 0
    WITH_NAMEKO = 1
    CHANGE = 2
    CANNOT = 3


TITLES = {
    Group.AS_IT_IS: "runs as it is",
    Group.WITH_NAMEKO: "runs with --nameko, or with blocking = True",
    Group.CHANGE: "wants a change",
    Group.CANNOT: "can't",
}


@frozen(order=True)
class Finding:
    """One place in a file.

    Attributes:
        line: its number, from 1.
        kind: a short name of what it is, for programs that read the report.
        text: what it is, and what to do.
    """

    line: int
    group: Group
    kind: str
    text: str


@frozen(order=True)
class Edit:
    """A piece of text to put in the place of another. Lines count from 1, columns from 0, in characters."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


@define
class Report:
    """What was found in one file, and what can be written in it."""

    path: str
    findings: list[Finding] = Factory(list)
    edits: list[Edit] = Factory(list)

    @property
    def group(self) -> Group:
        """The worst group of its findings."""
        return max((each.group for each in self.findings), default=Group.AS_IT_IS)


def edited(source: str, edits: list[Edit]) -> str:
    """The source with the edits made. They must not overlap."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for edit in sorted(set(edits), reverse=True):
        begin, end = starts[edit.line - 1] + edit.column, starts[edit.end_line - 1] + edit.end_column
        source = source[:begin] + edit.text + source[end:]
    return source
