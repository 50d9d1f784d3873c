"""Where a module reads what a call of another service gives: nameko waits there, and here a Deferred is there. Pure.

Each expression is a proxy (something whose call asks another service), a result (what such a call gives), or neither.
What a function of the module returns, and what its parameters are given, is found by going over all functions until
nothing new is learned: so a result is followed through helpers, variables, comprehensions and arguments.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import Enum
from typing import TypeGuard

from txservices.migration.checking.names import Class, Function, Names

ROUNDS_MAX = 20  # over all functions; each one follows values through one more function

Key = tuple[str, str]  # the names of a class, or "", and of a function


class Kind(Enum):
    """What an expression is."""

    PROXY = "proxy"
    REPLY = "reply"  # of ``call_async``
    RESULT = "result"


class Values:
    """The results that a module reads.

    Attributes:
        reads: for each call whose result is read: the function that reads it, and the node that reads it.
        awaits: the calls to put an ``await`` before, by the function that they are in.
        unused: the calls whose result nobody looks at.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.functions: dict[Key, tuple[Function, Class | None]] = {}
        for name, node in names.functions.items():
            self.functions["", name] = node, None
        for name, owner in names.classes.items():
            for method, node in owner.methods.items():
                self.functions[name, method] = node, owner
        self.returns: dict[Key, Kind] = {}
        self.parameters: dict[Key, dict[str, Kind]] = {key: {} for key in self.functions}
        self.attributes: dict[str, dict[str, Kind]] = {name: {} for name in names.classes}
        for _ in range(ROUNDS_MAX):
            self.learned = False
            self.reads: dict[Key, list[ast.expr]] = {}
            self.awaits: dict[Key, list[ast.Call]] = {}
            self.unused: dict[Key, list[ast.Call]] = {}
            for key, (node, cls) in self.functions.items():
                Walk(self, key, node, cls).walk()
            if not self.learned:
                break

    def learn(self, table: dict[str, Kind] | dict[Key, Kind], name: str | Key, kind: Kind | None) -> None:
        if kind is not None and name not in table:
            table[name] = kind  # type: ignore[index]  # each table has names of one kind
            self.learned = True

    def waits(self, key: Key) -> bool:
        """Whether a function reads a result, so that it would have to await it."""
        return bool(self.reads.get(key))


class Walk:
    """One walk over one function."""

    def __init__(self, values: Values, key: Key, node: Function, cls: Class | None) -> None:
        self.values = values
        self.key = key
        self.node = node
        self.cls = cls
        self.variables: dict[str, Kind] = dict(values.parameters[key])

    def walk(self) -> None:
        for statement in self.node.body:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr):
            kind = self.kind(node.value)
            if kind is Kind.RESULT and isinstance(node.value, ast.Call):
                self.values.unused.setdefault(self.key, []).append(node.value)
        elif isinstance(node, ast.Return):
            if node.value is not None:
                self.values.learn(self.values.returns, self.key, self.kind(node.value))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            if node.value is not None:
                kind = self.kind(node.value)
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self.assign(target, kind, node.value)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            kind = self.kind(node.iter)
            if kind is Kind.RESULT:
                self.read(node.iter)
            self.assign(node.target, kind if kind is not Kind.RESULT else None, node.iter)
            for each in (*node.body, *node.orelse):
                self.statement(each)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                self.value(item.context_expr)
            for each in node.body:
                self.statement(each)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for each in node.body:
                self.statement(each)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    self.statement(child)
                elif isinstance(child, ast.ExceptHandler):
                    for each in child.body:
                        self.statement(each)
                elif isinstance(child, ast.expr):
                    self.value(child)

    def assign(self, target: ast.expr, kind: Kind | None, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            if kind is None:
                self.variables.pop(target.id, None)
            else:
                self.variables[target.id] = kind
        elif is_self_attribute(target) and self.cls is not None:
            if kind is Kind.RESULT:
                self.read(value)
            elif kind is not None:
                self.values.learn(self.values.attributes[self.cls.node.name], target.attr, kind)
        elif kind is Kind.RESULT:
            self.read(value)

    def read(self, node: ast.expr) -> None:
        """Note that the value of a result is read there."""
        self.values.reads.setdefault(self.key, []).append(node)
        for call in self.calls_in(node):
            found = self.values.awaits.setdefault(self.key, [])
            if call not in found:
                found.append(call)

    def calls_in(self, node: ast.expr) -> Iterator[ast.Call]:
        """The calls that give a result which is read; that of a variable is where it was assigned."""
        if isinstance(node, ast.Name):
            for statement in ast.walk(self.node):
                if isinstance(statement, ast.Assign) and any(
                    isinstance(each, ast.Name) and each.id == node.id for each in statement.targets
                ):
                    yield from self.calls_in(statement.value)
        elif isinstance(node, ast.Call):
            yield node
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr) and self.kind(child) is Kind.RESULT:
                    yield from self.calls_in(child)
                elif isinstance(child, ast.comprehension):
                    yield from ()

    def value(self, node: ast.expr) -> None:
        """An expression whose value is read."""
        if self.kind(node) is Kind.RESULT:
            self.read(node)

    def kind(self, node: ast.expr | None) -> Kind | None:
        """What an expression is. Notes what is read inside it."""
        if node is None or isinstance(node, ast.Constant):
            return None
        if isinstance(node, ast.Name):
            return self.variables.get(node.id)
        if isinstance(node, ast.Await):
            self.kind(node.value)
            return None
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.Subscript):
            kind = self.kind(node.value)
            if kind is Kind.RESULT:
                self.read(node.value)
            self.value(node.slice)
            return kind if kind is Kind.PROXY else None
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.IfExp):
            self.value(node.test)
            return self.kind(node.body) or self.kind(node.orelse)
        if isinstance(node, ast.NamedExpr):
            kind = self.kind(node.value)
            self.assign(node.target, kind, node.value)
            return kind
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            self.comprehension(node)
            return None
        if isinstance(node, ast.Lambda):
            self.value(node.body)
            return None
        for child in ast.iter_child_nodes(node):  # operators, comparisons, texts, displays: all of them read
            if isinstance(child, ast.expr):
                self.value(child)
            elif isinstance(child, ast.FormattedValue):
                self.value(child.value)
        return None

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        for each in node.generators:
            kind = self.kind(each.iter)
            if kind is Kind.RESULT:
                self.read(each.iter)
            self.assign(each.target, kind if kind is not Kind.RESULT else None, each.iter)
            for condition in each.ifs:
                self.value(condition)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.value(part)

    def attribute(self, node: ast.Attribute) -> Kind | None:
        if is_self_attribute(node) and self.cls is not None:
            if node.attr in self.cls.proxies:
                return Kind.PROXY
            return self.values.attributes[self.cls.node.name].get(node.attr)
        kind = self.kind(node.value)
        if kind is Kind.RESULT:
            self.read(node.value)
            return None
        return kind

    def call(self, node: ast.Call) -> Kind | None:
        function = node.func
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        target = self.function_of(function)
        if target is not None:
            self.pass_on(target, node)
            return self.values.returns.get(target)
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        dotted = self.values.names.dotted(function)
        if dotted == "functools.partial" or (dotted is None and name == "getattr"):
            kinds = [self.kind(each) for each in arguments]
            return Kind.PROXY if Kind.PROXY in kinds[:1] else None
        kind = self.kind(function)
        given = [self.kind(each) for each in arguments]
        for each, of in zip(arguments, given, strict=True):
            if of is Kind.RESULT:
                self.read(each)
        if kind is Kind.REPLY:
            return Kind.RESULT if name == "result" else None
        if kind is Kind.PROXY:
            return {"call_async": Kind.REPLY, "options": Kind.PROXY}.get(name, Kind.RESULT)
        if kind is None and Kind.PROXY in given:  # map(self.y.get, items), pool.imap(self.y.get, items), …
            return Kind.RESULT
        return None

    def function_of(self, node: ast.expr) -> Key | None:
        """The function of this module that a call calls."""
        if isinstance(node, ast.Name) and ("", node.id) in self.values.functions and node.id not in self.variables:
            return "", node.id
        if is_self_attribute(node) and self.cls is not None:
            for name in (self.cls.node.name, *(base.id for base in self.cls.node.bases if isinstance(base, ast.Name))):
                if (name, node.attr) in self.values.functions:
                    return name, node.attr
        return None

    def pass_on(self, target: Key, node: ast.Call) -> None:
        """Learn what the parameters of a function of this module are given."""
        function, cls = self.values.functions[target]
        names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        static = any(getattr(each, "id", "") == "staticmethod" for each in function.decorator_list)
        if cls is not None and not static:
            names = names[1:]
        known = self.values.parameters[target]
        for name, value in zip(names, node.args, strict=False):
            self.values.learn(known, name, self.kind(value))
        for keyword in node.keywords:
            if keyword.arg is not None:
                self.values.learn(known, keyword.arg, self.kind(keyword.value))


def is_self_attribute(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
