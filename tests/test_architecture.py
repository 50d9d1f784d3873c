"""The rows of the house: every import in txservices/ is read, and must lead to a lower row."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from twisted.trial.unittest import TestCase

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "txservices")

# From the lowest up. A module imports from lower rows, and inside its own from what stands before it there.
ROWS = {
    "words": ["exceptions", "utils", "log_helpers", "configuration", "constants"],
    "bytes": ["wire", "serialization"],
    "clients": ["broker", "amqp"],
    "core": ["extensions", "threads", "workers", "watchdog", "containers", "runners"],
    "writes": ["timer", "dependency_providers", "contextdata", "messaging", "calls", "rpc", "events", "web"],
    "faces": ["standalone", "testing", "command"],
}
PLACE = {room: (row, place) for row, rooms in enumerate(ROWS.values()) for place, room in enumerate(rooms)}
CORE = {"extensions", "threads", "workers", "watchdog", "containers", "runners"}
HOSTS_OF_BROKER = {"broker", "command", "testing"}
PURE = {
    "txservices.wire.spec",
    "txservices.wire.tables",
    "txservices.wire.codec",
    "txservices.wire.frames",
    "txservices.wire.login",
    "txservices.wire.heartbeat",
    "txservices.broker.bindings",
    "txservices.broker.messages",
    "txservices.broker.arguments",
    "txservices.broker.queues",
    "txservices.broker.exchanges",
    "txservices.broker.vhost",
    "txservices.broker.assemblers",
}


def modules() -> Iterator[tuple[str, str]]:
    """Every module of the package with its file."""
    for folder, _, files in os.walk(PACKAGE):
        for name in sorted(files):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                dotted = os.path.relpath(path, os.path.dirname(PACKAGE))[:-3].replace(os.sep, ".")
                yield dotted.removesuffix(".__init__"), path


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """What is imported, wherever it stands, with the line; not what is for the type checker alone."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for branch in node.body
        for inner in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room(dotted: str) -> str:
    """The room that a module or a name of ours is in; nothing for what the package itself holds."""
    _, _, inside = dotted.partition(".")
    return inside.partition(".")[0] if not inside.startswith("__") else ""


def fault(module: str, imported: str) -> str | None:
    """What is wrong with an import, if something is."""
    here, there = room(module), room(imported)
    top = imported.partition(".")[0]
    if imported.startswith("."):
        return "imports are absolute"
    if module in PURE and (imported + ".").startswith("twisted.internet."):
        return "a pure module takes bytes and gives values: nothing of twisted.internet"
    if here in CORE and top in ("klein", "txamqp"):
        return f"core doesn't know {top}"
    if top != "txservices" or not here or not there or (here == there and here in ("amqp", "broker")):
        return None
    if there not in PLACE:
        return f"no row has {there!r}: give it a place in ROWS"
    if here in CORE and there in ("amqp", "broker"):
        return f"core doesn't know {there}"
    if there == "broker" and here not in HOSTS_OF_BROKER:
        return f"only {', '.join(sorted(HOSTS_OF_BROKER))} know the broker"
    if here == "broker" and there == "amqp":
        return "the broker and its clients share wire alone"
    if here == "broker" and there in CORE:
        return "the broker knows nothing of services"
    if here != there and PLACE[there] > PLACE[here]:
        return f"{there} is higher than {here}"
    return None


class Rows(TestCase):
    """Who may import whom."""

    def test_imports_go_down(self) -> None:
        """No module imports from a higher row, or what its room may not know."""
        faults = []
        for module, path in modules():
            if room(module) and room(module) not in PLACE:
                faults.append(f"{path}: no row has {room(module)!r}: give it a place in ROWS")
                continue
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read(), path)
            for line, imported in imports(tree):
                found = fault(module, imported)
                if found:
                    faults.append(f"{path}:{line}: {module} imports {imported}: {found}")
        self.assertEqual(faults, [], "\n" + "\n".join(faults))

    def test_what_is_refused(self) -> None:
        """The check itself finds what it is for."""
        for module, imported in [
            ("txservices.utils", "txservices.wire.spec"),
            ("txservices.extensions", "txservices.containers.ServiceContainer"),
            ("txservices.containers", "txservices.amqp.connection"),
            ("txservices.workers", "klein.Klein"),
            ("txservices.messaging", "txservices.rpc.Rpc"),
            ("txservices.rpc", "txservices.broker.memory"),
            ("txservices.rpc", "txservices.standalone.rpc"),
            ("txservices.broker.session", "txservices.amqp.connection.Connections"),
            ("txservices.broker.session", "txservices.runners.ServiceRunner"),
            ("txservices.wire.codec", "twisted.internet.defer.Deferred"),
            ("txservices.wire.codec", "twisted.internet"),
            ("txservices.rpc", ".messaging"),
            ("txservices.rpc", "txservices.helpers.thing"),
        ]:
            self.assertTrue(fault(module, imported), f"{module} may import {imported}?")

    def test_what_is_allowed(self) -> None:
        """It lets pass what the rows allow."""
        for module, imported in [
            ("txservices.rpc", "txservices.messaging.amqp"),
            ("txservices.runners", "txservices.containers"),
            ("txservices.broker.session", "txservices.wire.frames.frame"),
            ("txservices.command.tap", "txservices.broker.memory.Broker"),
            ("txservices.amqp.protocol", "txservices.__version__"),
            ("txservices.amqp.protocol", "twisted.internet.defer"),
            ("txservices.command.cli", "txservices.command.tap"),
        ]:
            self.assertIsNone(fault(module, imported))

    def test_types_may_climb(self) -> None:
        """What only the type checker imports binds no module to another."""
        text = "if TYPE_CHECKING:\n    from txservices.rpc import Rpc\nimport txservices.utils\n"
        self.assertEqual(list(imports(ast.parse(text))), [(3, "txservices.utils")])
