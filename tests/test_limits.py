"""docs/limits.md: every number with a name in the code stands there, with its value."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT

# Numbers that limit nothing: AMQP's own, flags, exit statuses, and versions.
NO_LIMITS = {
    "wire/spec.py": {"FRAME_METHOD", "FRAME_HEADER", "FRAME_BODY", "FRAME_HEARTBEAT", "FRAME_END", "FRAME_OVERHEAD"}
    | {"BASIC_CLASS"},
    "wire/codec.py": {"MORE_FLAGS", "UNUSED_FLAG"},
    "broker/messages.py": {"NO_PROPERTY"},
    "constants.py": {"NON_PERSISTENT", "PERSISTENT"},
    "monitoring/answers.py": {"VERSION"},
    "web/compression.py": {"GZIP_WINDOW"},
    "command/exits.py": {"CRASH", "INTERRUPTED", "MISTAKE"},
}
UNITS = {"KiB": 1024, "MiB": 1024**2}
ROW = re.compile(
    r"\| `(?P<name>\w+)` \| (?P<value>[\d,.]+)(?: (?P<unit>\w+))? \| .+? \|(?: .+)? \| (?P<where>[\w/.]+) \|"
)


def amount(value: str, unit: str | None) -> float:
    """A number as the page has it."""
    return float(value.replace(",", "")) * UNITS.get(unit or "", 1)


def limits() -> Iterator[tuple[str, str, float]]:
    """Where each number stands, its name, and its value."""
    package = os.path.join(ROOT, "txservices")
    for folder, _, files in os.walk(package):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                where = os.path.relpath(path, package)
                with open(path, encoding="utf-8") as source:
                    tree = ast.parse(source.read())
                for name, value in numbers(tree):
                    if name not in NO_LIMITS.get(where, ()):
                        yield where, name, value


def numbers(tree: ast.Module) -> Iterator[tuple[str, float]]:
    """The names in capitals that a module gives to numbers, products of numbers among them."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            value = number(node.value)
            if value is not None:
                yield node.targets[0].id, value


def number(node: ast.expr) -> float | None:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]  # it is a number
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = number(node.left), number(node.right)
        return None if left is None or right is None else left * right
    return None


class Limits(SynchronousTestCase):
    """The page and the code."""

    def test_page(self) -> None:
        """Every limit has its row, with its value, and no row is about one that there isn't."""
        with open(os.path.join(ROOT, "docs", "limits.md"), encoding="utf-8") as file:
            lines = [line for line in file.read().splitlines() if line.startswith("| `")]
        rows = [ROW.fullmatch(line) for line in lines]
        unread = [line for line, row in zip(lines, rows, strict=True) if row is None]
        self.assertEqual(unread, [], "a row is | `NAME` | number unit | what | beyond | where |")
        written = sorted((row["where"], row["name"], amount(row["value"], row["unit"])) for row in rows if row)
        there = sorted(limits())
        self.assertEqual([limit for limit in there if limit not in written], [], "these have no row")
        self.assertEqual([limit for limit in written if limit not in there], [], "these are not in the code")
        self.assertEqual(len(written), len(there), "a limit has two rows")

    def test_reading(self) -> None:
        """Numbers that are read as limits, and others that are not."""
        source = "A_MAX = 5\nB = 2 * 3 * 0.5\nC = -A_MAX\nD = 'x'\nE = (1, 2)\nF = True\ng = 1\nH = 2 * A_MAX\n"
        self.assertEqual(list(numbers(ast.parse(source))), [("A_MAX", 5), ("B", 3.0)])
