"""The changes that can be written: imports, and ``await`` or ``blocking = True`` where a result is read. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from txservices.migration.checking.findings import Edit, Finding, Group
from txservices.migration.checking.names import Class, Names
from txservices.migration.checking.rules import NEW_PROXIES, blocking_calls
from txservices.migration.checking.values import Key, Values

BLOCKING_PROXIES = "txservices.standalone.blocking"


class Rewriting:
    """What is to be changed in one module, to run it without ``--nameko``."""

    def __init__(self, text: str, names: Names, values: Values) -> None:
        self.lines = text.splitlines()
        self.names = names
        self.values = values
        self.parents = {child: node for node in ast.walk(names.tree) for child in ast.iter_child_nodes(node)}

    def findings(self) -> Iterator[Finding]:
        """A finding for each result that is read."""
        for key, reads in self.values.reads.items():
            function, cls = self.values.functions[key]
            if isinstance(function, ast.AsyncFunctionDef):
                continue
            can = cls is not None and self.is_safe(cls)
            instead = "write await" if can else "set blocking = True on the class, or await it"
            for node in reads:
                what = ast.unparse(node)
                text = f"the value of {what[:80]} is read, which is a Deferred without --nameko: {instead}"
                yield Finding(node.lineno, Group.WITH_NAMEKO, "result", text)

    # Edits

    def edits(self) -> list[Edit]:
        """The edits that make it run without ``--nameko``."""
        found = [*self.of_imports()]
        for cls in self.names.classes.values():
            if not cls.is_service or cls.attribute("blocking") is not None:
                continue
            waiting = self.waiting(cls)
            if any(True for name in cls.entrypoints for _ in blocking_calls(self.names, cls.methods[name])) or (
                waiting and not self.is_safe(cls)
            ):
                found += self.block(cls)
            else:
                for key in waiting:
                    found += self.wait(key)
        return found

    def of_imports(self) -> Iterator[Edit]:
        for node in ast.walk(self.names.tree):
            if isinstance(node, ast.ImportFrom) and not node.level and is_nameko(node.module or ""):
                module = node.module or ""
                new = BLOCKING_PROXIES if module in NEW_PROXIES else module.replace("nameko", "txservices", 1)
                if module == "nameko" and any(each.name == "config" for each in node.names):
                    continue  # it is there with --nameko alone
                yield self.replace(node.lineno, self.column(node) + len("from "), module, new)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if is_nameko(alias.name) and alias.asname is not None:
                        new = alias.name.replace("nameko", "txservices", 1)
                        yield self.replace(alias.lineno, self.column(alias), alias.name, new)

    def waiting(self, cls: Class) -> list[Key]:
        """The functions of a class that read results, and those that call these, which have to wait as well."""
        found = [key for key in self.values.functions if key[0] == cls.node.name and self.values.waits(key)]
        return [key for key in found if not isinstance(self.values.functions[key][0], ast.AsyncFunctionDef)]

    def is_safe(self, cls: Class) -> bool:
        """Whether each place that reads a result in the class can be written with ``await``.

        Its methods must be entrypoints, which nobody of the module calls; and no result may be read in a function
        inside, a lambda or a generator, or go through a helper.
        """
        for key in self.waiting(cls):
            function, _ = self.values.functions[key]
            if key[1] not in cls.entrypoints or is_generator(function):
                return False
            for call in self.values.awaits.get(key, []):
                if not self.is_plain(call, function) or self.values.returns.get(self.target(key, call) or key):
                    return False
        helpers = [name for name in cls.methods if name not in cls.entrypoints]
        return not any((cls.node.name, name) in self.values.returns for name in helpers)

    def target(self, key: Key, call: ast.Call) -> Key | None:
        """The function of this module that a call calls, by its name."""
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        return next((each for each in ((key[0], name), ("", name)) if each in self.values.functions), None)

    def is_plain(self, call: ast.AST, function: ast.AST) -> bool:
        """Whether a call stands in the function itself: not in a lambda, a generator or a function inside it."""
        node = self.parents[call]
        while node is not function:
            if isinstance(node, (ast.Lambda, ast.GeneratorExp, ast.FunctionDef, ast.AsyncFunctionDef)):
                return False
            node = self.parents[node]
        return True

    def block(self, cls: Class) -> Iterator[Edit]:
        after = cls.attribute("name") or cls.node.body[0]
        line, indent = after.end_lineno or after.lineno, " " * after.col_offset
        column = len(self.lines[line - 1])
        yield Edit(line, column, line, column, f"\n{indent}blocking = True")

    def wait(self, key: Key) -> Iterator[Edit]:
        function, _ = self.values.functions[key]
        column = self.column(function)
        yield Edit(function.lineno, column, function.lineno, column, "async ")
        for call in self.values.awaits.get(key, []):
            parent = self.parents[call]
            tight = isinstance(parent, (ast.Attribute, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Starred))
            begin = self.column(call)
            end_line, end = call.end_lineno or call.lineno, self.end_column(call)
            yield Edit(call.lineno, begin, call.lineno, begin, "(await " if tight else "await ")
            if tight:
                yield Edit(end_line, end, end_line, end, ")")

    def replace(self, line: int, column: int, old: str, new: str) -> Edit:
        at = self.lines[line - 1].index(old, column)
        return Edit(line, at, line, at + len(old), new)

    def column(self, node: ast.stmt | ast.expr | ast.alias) -> int:
        """Where a node begins, in characters: Python's parser counts bytes of UTF-8."""
        return self.characters(node.lineno, node.col_offset)

    def end_column(self, node: ast.Call) -> int:
        return self.characters(node.end_lineno or node.lineno, node.end_col_offset or 0)

    def characters(self, line: int, column: int) -> int:
        return len(self.lines[line - 1].encode()[:column].decode())


def is_nameko(module: str) -> bool:
    return module == "nameko" or module.startswith("nameko.")


def is_generator(function: ast.AST) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function))
