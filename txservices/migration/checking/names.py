"""The names of a module: what its imports lead to, its functions, and the providers of its classes. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from attrs import Factory, define

Function = ast.FunctionDef | ast.AsyncFunctionDef

PROXIES = {
    "nameko.rpc.RpcProxy",
    "nameko.rpc.ServiceRpc",
    "nameko.rpc.ClusterRpc",
    "nameko.rpc.ClusterRpcProxy",
}
DISPATCHERS = {"nameko.events.EventDispatcher", "nameko.messaging.Publisher"}
ENTRYPOINTS = {
    "nameko.rpc.rpc",
    "nameko.events.event_handler",
    "nameko.messaging.consume",
    "nameko.timer.timer",
    "nameko.web.handlers.http",
    "nameko.web.websocket.rpc",
    "nameko.testing.services.once",
    "nameko.testing.services.dummy",
}
EXTENSIONS = {
    "nameko.extensions.Extension",
    "nameko.extensions.DependencyProvider",
    "nameko.extensions.Entrypoint",
    "nameko.extensions.SharedExtension",
    "nameko.extensions.ProviderCollector",
}
HOOKS = {"setup", "start", "stop", "kill", "get_dependency", "worker_setup", "worker_result", "worker_teardown"}


@define
class Class:
    """A class of the module.

    Attributes:
        proxies: its attributes that call other services.
        dispatchers: its attributes that publish.
        methods: its methods.
        entrypoints: those of them that a decorator of an entrypoint is above.
        bases: the dotted names of its bases.
    """

    node: ast.ClassDef
    bases: set[str] = Factory(set)
    proxies: set[str] = Factory(set)
    dispatchers: set[str] = Factory(set)
    methods: dict[str, Function] = Factory(dict)
    entrypoints: set[str] = Factory(set)

    @property
    def is_service(self) -> bool:
        return bool(self.entrypoints)

    @property
    def is_extension(self) -> bool:
        return bool(self.bases & EXTENSIONS)

    def attribute(self, name: str) -> ast.Assign | None:
        """The assignment of an attribute in the class's body."""
        for node in self.node.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(each, ast.Name) and each.id == name for each in node.targets
            ):
                return node
        return None


class Names:
    """What the names in a module mean.

    Attributes:
        imported: local names, and the dotted names that they were imported as.
        lines: the lines of the imports, by those dotted names.
        classes: its classes, by name.
        functions: its functions, by name.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.imported: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        for node in ast.walk(tree):
            for local, dotted in imports_of(node):
                self.imported[local] = dotted
                self.lines.setdefault(dotted, node.lineno)  # type: ignore[attr-defined]  # an import has a line
        self.functions: dict[str, Function] = {
            node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        self.classes: dict[str, Class] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = self.read_class(node)

    def dotted(self, node: ast.AST) -> str | None:
        """The dotted name of what a name or an attribute means, if it was imported."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id)
        if isinstance(node, ast.Attribute):
            of = self.dotted(node.value)
            return None if of is None else f"{of}.{node.attr}"
        return None

    def read_class(self, node: ast.ClassDef) -> Class:
        found = Class(node)
        for base in node.bases:
            found.bases |= self.meanings(base)
        for each in node.body:
            if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.methods[each.name] = each
                if any(self.is_entrypoint(decorator) for decorator in each.decorator_list):
                    found.entrypoints.add(each.name)
            elif isinstance(each, ast.Assign) and isinstance(each.value, ast.Call):
                means = self.meanings(each.value.func)
                names = {target.id for target in each.targets if isinstance(target, ast.Name)}
                if means & PROXIES:
                    found.proxies |= names
                elif means & DISPATCHERS:
                    found.dispatchers |= names
        for base in node.bases:  # what it inherits from a class of this module
            inherited = self.classes.get(base.id) if isinstance(base, ast.Name) else None
            if inherited is not None:
                found.proxies |= inherited.proxies
                found.dispatchers |= inherited.dispatchers
        return found

    def meanings(self, node: ast.AST) -> set[str]:
        """The dotted names of a class, and of the bases of one of this module."""
        if isinstance(node, ast.Subscript):
            return self.meanings(node.value)
        dotted = self.dotted(node)
        if dotted is not None:
            return {dotted}
        if isinstance(node, ast.Name) and node.id in self.classes:
            return self.classes[node.id].bases
        return set()

    def is_entrypoint(self, decorator: ast.AST) -> bool:
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        dotted = self.dotted(node)
        if dotted in ENTRYPOINTS or (dotted is not None and dotted.startswith("nameko_")):
            return True
        return isinstance(node, ast.Name) and self.is_own_decorator(node.id)

    def is_own_decorator(self, name: str) -> bool:
        """Whether a name was made by ``name = SomeEntrypoint.decorator`` in this module."""
        return any(
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == "decorator"
            and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
            for node in self.tree.body
        )

    def owner(self, function: ast.AST) -> Class | None:
        """The class that a function is a method of."""
        return next((each for each in self.classes.values() if function in each.methods.values()), None)


def imports_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The local names that an import makes, with what they mean."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname is None:
                top = alias.name.partition(".")[0]
                yield top, top
            else:
                yield alias.asname, alias.name
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"
