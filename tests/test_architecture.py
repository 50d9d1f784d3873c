"""The rows of the house, as README's map draws them: every import in txservices/ is read, and must lead down.

The map is the one place where the order stands. A line of it is a row, or a folder, with its rooms::

    core   extensions <- threads, workers, watchdog <- containers <- runners

A room imports from rooms further left on its line and from lower rows. Rooms with a comma between them do not import
each other. Imports for the type checker count, and so do modules that are named in a text.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "txservices")

LINE = re.compile(r"^(\w+(?:/\w+)*)/? +([\w/]+(?:(?: *<- *|, *)[\w/]+)*)(?: {2,}.*)?$")
ORDER = re.compile(r"\w+(?:, \w+)*(?: <- \w+(?:, \w+)*)+")  # in a docstring, as in the map
DOTTED = re.compile(r"^txservices(\.\w+)+(:\w+)?$")

HOSTS_OF_BROKER = ("broker", "command", "testing")  # whoever else wants one takes an address


def read_map(text: str) -> tuple[dict[str, tuple[int, int]], dict[str, dict[str, int]]]:
    """README's map: for each room its row and its place there, and for each folder the places of its modules.

    Both count from the lowest up; the rows stand highest first, in one block, and the folders in the next.
    """
    _, _, section = text.partition("\n## The map\n")
    section, _, _ = section.partition("\n## ")
    rows, folders = re.findall(r"```\n(.*?)```", section, re.DOTALL)[:2]

    def lines(block: str) -> list[tuple[str, list[list[str]]]]:
        matches = [LINE.match(line) for line in block.splitlines()]
        return [
            (
                match[1].replace("/", "."),
                [re.split(r" *, *", group.replace("/", "")) for group in re.split(r" *<- *", match[2])],
            )
            for match in matches
            if match is not None
        ]

    return (
        {
            room: (row, place)
            for row, (_, groups) in enumerate(reversed(lines(rows)))
            for place, group in enumerate(groups)
            for room in group
        },
        {
            folder: {room: place for place, group in enumerate(groups) for room in group}
            for folder, groups in lines(folders)
        },
    )


with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
    ROWS, FOLDERS = read_map(readme.read())

CORE = {room for room, (row, _) in ROWS.items() if row == ROWS["extensions"][0]}


class Module:
    """A module of the package, read."""

    def __init__(self, dotted: str, path: str) -> None:
        self.dotted = dotted
        self.path = path

    @cached_property
    def tree(self) -> ast.Module:
        with open(self.path, encoding="utf-8") as file:
            return ast.parse(file.read(), self.path)

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        return list(imports(self.tree))

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""


def modules() -> Iterator[Module]:
    """Every module of the package."""
    for folder, _, files in os.walk(PACKAGE):
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                dotted = os.path.relpath(path, ROOT)[:-3].replace(os.sep, ".")
                yield Module(dotted.removesuffix(".__init__"), path)


MODULES = {module.dotted: module for module in modules()}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement, also those inside of others. Most of a tree is expressions, in which no import stands."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.expr, ast.expr_context)):
            yield child
            yield from statements(child)


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Whatever is imported, wherever it stands and for whatever use, with the line."""
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def names_in_texts(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Texts that name something of ours, with the line, and whether they stand in a table: a constant in capitals."""
    nodes = list(ast.walk(tree))
    loggers = {
        id(argument)
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "getLogger"
        for argument in node.args
    }
    in_tables = {
        id(inner)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None
        for inner in ast.walk(node.value)
    }
    for node in nodes:
        if id(node) in loggers:  # the name of a logger is the user's to know, and loads nothing
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.match(node.value):
            yield node.lineno, node.value.replace(":", "."), id(node) in in_tables


def place(dotted: str) -> tuple[str, list[str]]:
    """The room of a module or name of ours, and the names from there on, if the room is a folder."""
    _, room, *inside = (*dotted.split("."), "")
    return room, inside if room in FOLDERS else []


def fault(module: str, imported: str) -> str | None:
    """The fault of an import, if it has one."""
    top = imported.partition(".")[0]
    here, inside_here = place(module)
    if imported.startswith("."):
        return "imports are absolute"
    if here in CORE and top == "klein":
        return "core doesn't know klein"
    if top == "txamqp" and here != "amqp":
        return "only amqp knows txamqp"
    there, inside_there = place(imported)
    if top != "txservices" or not here or there not in ROWS:
        return None  # the package itself may name all, and has nothing but its version to import
    if here == there:
        return fault_inside(here, inside_here, inside_there)
    if here in CORE and there in ("amqp", "broker"):
        return f"core doesn't know {there}"
    if there == "broker" and here not in HOSTS_OF_BROKER:
        return f"only {', '.join(HOSTS_OF_BROKER)} know the broker"
    if ROWS[there] >= ROWS[here]:
        return f"{there} is not lower than {here} in README's map"
    return None


def fault_inside(folder: str, inside_here: list[str], inside_there: list[str]) -> str | None:
    """The fault of an import inside a folder, if it has one."""
    places = FOLDERS.get(folder, {})
    here, there = inside_here[0] if inside_here else "", inside_there[0] if inside_there else ""
    if there not in places:
        return None  # a name of the folder's own module
    if here == there:
        return fault_inside(f"{folder}.{here}", inside_here[1:], inside_there[1:])
    if here in places and places[there] >= places[here]:
        return f"{folder}.{there} is not lower than {folder}.{here} in README's map"
    return None


def pure(module: Module) -> bool:
    """Whether a module calls itself pure, or its folder calls all in it so."""
    folder = MODULES[module.dotted.rpartition(".")[0]] if module.dotted != "txservices" else module
    return any(re.search(r"\bPure\b", each.docstring) for each in (module, folder))


def reached(dotted: str) -> Iterator[tuple[str, int, str]]:
    """Whatever a module imports, and the modules of ours that it imports likewise: by whom, in which line, what."""
    seen, left = {dotted}, [dotted]
    while left:
        module = MODULES[left.pop()]
        for line, imported in module.imports:
            yield module.path, line, imported
            found = imported if imported in MODULES else imported.rpartition(".")[0]
            if found in MODULES and found not in seen and found != "txservices":
                seen.add(found)
                left.append(found)


class TheMap(SynchronousTestCase):
    """README's map and the folder say the same."""

    def test_every_module_has_its_place(self) -> None:
        """Each room and each module of a folder stands in the map."""
        missing = []
        for dotted in MODULES:
            room, _, inside = dotted.removeprefix("txservices").lstrip(".").partition(".")
            if room and room not in ROWS:
                missing.append(f"{dotted}: no row has {room!r}")
            folder, _, name = f"{room}.{inside}".rpartition(".")
            if room in ROWS and inside and name not in FOLDERS.get(folder, {}):
                missing.append(f"{dotted}: no folder's line has {inside!r}")
        self.assertEqual(missing, [], "\n" + "\n".join(missing))

    def test_every_place_has_its_module(self) -> None:
        """Each name in the map is there."""
        drawn = [*ROWS, *(f"{folder}.{inside}" for folder, places in FOLDERS.items() for inside in places)]
        self.assertEqual([name for name in drawn if f"txservices.{name}" not in MODULES], [])

    def test_docstrings(self) -> None:
        """An order that the docstring of a folder draws is the map's."""
        wrong = []
        for folder, places in FOLDERS.items():
            for order in ORDER.findall(MODULES[f"txservices.{folder}"].docstring):
                groups = [[places.get(room, -1) for room in group.split(", ")] for group in order.split(" <- ")]
                if any(max(lower) >= min(higher) for lower, higher in pairwise(groups)) or -1 in groups[0]:
                    wrong.append(f"{folder}: {order}")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_reading(self) -> None:
        """The highest row comes first, and what is further left is lower."""
        blocks = ["high    a, b/ <- c    words\nlow  d\n", "b/  one <- two, three\n"]
        text = "".join(f"```\n{block}```\n" for block in blocks)
        rows, folders = read_map(f"\n## The map\n{text}\n## More\n")
        self.assertEqual(rows, {"d": (0, 0), "a": (1, 0), "b": (1, 0), "c": (1, 1)})
        self.assertEqual(folders, {"b": {"one": 0, "two": 1, "three": 1}})


class Rows(SynchronousTestCase):
    """The order of imports."""

    def complain(self, faults: list[str]) -> None:
        self.assertEqual(faults, [], "\n" + "\n".join(faults))

    def test_imports_go_down(self) -> None:
        """No module imports from a higher row or place, or what its room may not know; nor only for types."""
        self.complain(
            [
                f"{module.path}:{line}: {module.dotted} imports {imported}: {found}"
                for module in MODULES.values()
                for line, imported in module.imports
                if (found := fault(module.dotted, imported))
            ]
        )

    def test_names_in_texts(self) -> None:
        """A text that names something of ours names what is there; only a table may name something higher."""
        faults = []
        for module in MODULES.values():
            for line, name, in_table in names_in_texts(module.tree):
                if not there(name):
                    faults.append(f"{module.path}:{line}: there is no {name}")
                elif not in_table and (found := fault(module.dotted, name)):
                    faults.append(f"{module.path}:{line}: {module.dotted} names {name}: {found}")
        self.complain(faults)

    def test_pure(self) -> None:
        """A module that calls itself pure reaches nothing of twisted.internet, by no way."""
        self.assertTrue(pure(MODULES["txservices.wire.frames"]))
        self.complain(
            [
                f"{path}:{line}: {dotted} is pure, and reaches {imported}"
                for dotted, module in MODULES.items()
                if pure(module)
                for path, line, imported in reached(dotted)
                if f"{imported}.".startswith("twisted.internet.")
            ]
        )

    def test_what_is_refused(self) -> None:
        """The check itself finds what it is for."""
        for module, imported in [
            ("txservices.utils", "txservices.wire.spec"),
            ("txservices.extensions", "txservices.containers.ServiceContainer"),
            ("txservices.workers", "txservices.containers"),
            ("txservices.containers", "txservices.amqp.connection"),
            ("txservices.workers", "klein.Klein"),
            ("txservices.messaging", "txservices.rpc.Rpc"),
            ("txservices.rpc", "txservices.broker.memory"),
            ("txservices.rpc", "txservices.standalone.rpc"),
            ("txservices.broker.session", "txservices.amqp.connection.Connections"),
            ("txservices.amqp.connection", "txservices.broker.session"),
            ("txservices.broker.session", "txservices.runners.ServiceRunner"),
            ("txservices.wire.codec", "txservices.wire.frames"),
            ("txservices.wire.spec", "txamqp.spec"),
            ("txservices.amqp.channel", "txservices.amqp.protocol.Protocol"),
            ("txservices.rpc", ".messaging"),
            ("txservices.migration.green.timeout", "txservices.migration.green.thread"),
        ]:
            self.assertTrue(fault(module, imported), f"{module} may import {imported}?")

    def test_what_is_allowed(self) -> None:
        """It lets pass what the map allows."""
        for module, imported in [
            ("txservices.rpc", "txservices.consumers.amqp"),
            ("txservices.runners", "txservices.containers"),
            ("txservices.broker.session", "txservices.wire.frames.frame"),
            ("txservices.command.tap", "txservices.broker.memory.Broker"),
            ("txservices.amqp.protocol", "txservices.__version__"),
            ("txservices.amqp.protocol", "txservices.amqp.channel.Channel"),
            ("txservices.amqp.protocol", "twisted.internet.defer"),
            ("txservices.amqp.spec", "txamqp.spec"),
            ("txservices.command.cli", "txservices.command.tap"),
            ("txservices", "txservices.rpc.rpc"),
        ]:
            self.assertIsNone(fault(module, imported))

    def test_types_may_not_climb(self) -> None:
        """An import for the type checker alone is an import; a table's text is told from others."""
        lines = ["if TYPE_CHECKING:", "    from txservices.rpc import Rpc", "TABLE = {1: 'txservices.rpc:Rpc'}"]
        tree = ast.parse("\n".join([*lines, "f('txservices.rpc')", "logging.getLogger('txservices.rpc')"]))
        self.assertEqual(list(imports(tree)), [(2, "txservices.rpc.Rpc")])
        self.assertEqual(list(names_in_texts(tree)), [(3, "txservices.rpc.Rpc", True), (4, "txservices.rpc", False)])


def there(name: str) -> bool:
    """Whether a dotted name is that of a module of ours, or of something in one."""
    if name in MODULES:
        return True
    module, _, attribute = name.rpartition(".")
    return module in MODULES and hasattr(import_module(module), attribute)
