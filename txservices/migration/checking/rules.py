"""What differs, apart from results that are read: each rule looks at one kind of thing in a module. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from txservices.migration.checking import python2
from txservices.migration.checking.findings import Finding, Group
from txservices.migration.checking.names import HOOKS, Class, Function, Names
from txservices.migration.checking.packages import known

# Modules whose calls wait for a network, a disk or a clock, by the first parts of their names
BLOCKING = (
    "boto3",
    "elasticsearch",
    "httplib2",
    "nameko.standalone",
    "MySQLdb",
    "paramiko",
    "psycopg2",
    "pymongo",
    "pymysql",
    "redis",
    "requests",
    "smtplib",
    "socket.create_connection",
    "sqlalchemy.create_engine",
    "sqlite3",
    "subprocess",
    "time.sleep",
    "urllib.request",
    "urllib3",
)
# What eventlet has and nobody can stand in for
NOT_STOOD_IN = (
    "backdoor",
    "corolocal",
    "db_pool",
    "pools",
    "serve",
    "websocket",
    "wrap_ssl",
    "wsgi",
)
KOMBU_WAITS = ("kombu.Connection", "kombu.Producer", "kombu.Consumer", "kombu.pools", "kombu.mixins", "kombu.common")
TEST_HELPERS = ("entrypoint_hook", "entrypoint_waiter", "wait_for_call", "container_factory", "runner_factory")
FIXTURES = ("txservices_run", "txservices_stage")
PRIVATE = {
    "_worker_pool": "with --nameko it says running(), free(), waiting() and size; see container.workers",
    "_managed_threads": "the container ends what spawn_managed_thread began",
    "_worker_threads": "with --nameko it has each running worker's thread; see container.workers",
    "_died": "use container.wait()",
    "_being_killed": "use container.life",
    "_consumers": "a QueueConsumer's consumers are not kombu's here",
    "_get_message_context": "see WorkerContext.context_data",
}
WRAPPED = ("_worker_setup", "_worker_result", "_worker_teardown")  # these are here, for packages that wrap them
NEW_PROXIES = ("nameko.standalone.rpc", "nameko.standalone.events")


def rules(names: Names, is_test: bool) -> Iterator[Finding]:
    """Every finding of every rule."""
    yield from of_imports(names)
    yield from of_python_2(names)
    for node in ast.walk(names.tree):
        yield from of_eventlet(names, node)
        yield from of_private_names(names, node)
        yield from of_config(names, node)
    for cls in names.classes.values():
        yield from of_class(names, cls)
    yield from of_tests(names, is_test)


def of_imports(names: Names) -> Iterator[Finding]:
    seen = set()
    for dotted, line in names.lines.items():
        top = dotted.partition(".")[0]
        if top == "gevent":
            text = "gevent patches the process in its own way: take it out; threads wait well without it"
            yield Finding(line, Group.CANNOT, "gevent", text)
        elif dotted.startswith("nameko.cli"):
            text = f"{dotted} leads to txservices.command.scripts with --nameko; `txservices run` needs no script"
            yield Finding(line, Group.WITH_NAMEKO, "command-line", text)
        elif dotted.startswith("nameko.legacy"):
            yield Finding(line, Group.CANNOT, "missing", f"{dotted} is not here: docs/migrating.md")
        elif dotted.startswith(NEW_PROXIES):
            text = f"{dotted}: a program without a reactor imports it from txservices.standalone.blocking"
            yield Finding(line, Group.WITH_NAMEKO, "standalone", text)
        elif dotted.startswith(KOMBU_WAITS):
            text = f"{dotted} waits for the broker: fine in a thread, and in tests; a service has Publisher and consume"
            yield Finding(line, Group.WITH_NAMEKO, "kombu", text)
        package = known(top)
        if package is not None and top not in seen:
            seen.add(top)
            group, text = package
            yield Finding(line, group, "package", f"{top}: {text}")


def of_python_2(names: Names) -> Iterator[Finding]:
    """Imports that Python 3 can't do. One in a ``try`` or an ``if`` has another for Python 3 beside it."""
    for node in names.tree.body:
        for dotted in imported_by(node):
            if python2.is_of_python_2(dotted):
                yield Finding(node.lineno, Group.CANNOT, "python-2", f"{dotted}: {python2.WHAT_TO_DO}")


def imported_by(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    return [each.name for each in node.names] if isinstance(node, ast.Import) else []


def of_eventlet(names: Names, node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        module = node.module if isinstance(node, ast.ImportFrom) else None
        for dotted in [f"{module}.{each.name}" if module else each.name for each in node.names]:
            if dotted.split(".")[0] == "eventlet":
                yield about_eventlet(node.lineno, dotted)
    elif isinstance(node, ast.Attribute):
        used = names.dotted(node) or ""
        if used.startswith("eventlet.") and used.count(".") == 1:
            yield about_eventlet(node.lineno, used)


def about_eventlet(line: int, dotted: str) -> Finding:
    parts = dotted.split(".")
    if len(parts) > 1 and parts[1] in NOT_STOOD_IN:
        text = f"{dotted} has no counterpart: use threads, or what the standard library has"
        return Finding(line, Group.CHANGE, "eventlet", text)
    text = f"{dotted} is stood in for with --nameko; without it, use threads or Deferreds"
    return Finding(line, Group.WITH_NAMEKO, "eventlet", text)


def of_private_names(names: Names, node: ast.AST) -> Iterator[Finding]:
    if not isinstance(node, ast.Attribute):
        return
    of_nameko = (names.dotted(node) or "").startswith("nameko.") and node.attr.startswith("_")
    if node.attr in PRIVATE or (of_nameko and not node.attr.endswith("__") and node.attr not in WRAPPED):
        instead = PRIVATE.get(node.attr, "code that wraps it can't run")
        text = f"{node.attr} is private to nameko: {instead}"
        yield Finding(node.lineno, Group.CHANGE, "private", text)


def of_config(names: Names, node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.Name) and names.imported.get(node.id) == "nameko.config":
        text = "nameko.config is there with --nameko; else inject txservices.Config"
        yield Finding(node.lineno, Group.WITH_NAMEKO, "config", text)


def of_class(names: Names, cls: Class) -> Iterator[Finding]:
    for name, method in cls.methods.items():
        in_hook = cls.is_extension and name in HOOKS
        if in_hook or name in cls.entrypoints:
            for line, what in blocking_calls(names, method):
                where = "hook" if in_hook else "method"
                text = f"{what} waits, and would hold the reactor: this {where} has to run in a thread"
                yield Finding(line, Group.WITH_NAMEKO, "blocking", text)
        for node in ast.walk(method):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "spawn_managed_thread":
                text = "a plain function runs in a thread with --nameko; else it is to be async, or give a Deferred"
                yield Finding(node.lineno, Group.WITH_NAMEKO, "managed-thread", text)


def blocking_calls(names: Names, function: Function) -> Iterator[tuple[int, str]]:
    """The calls in a function that wait for a network, a disk or a clock."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            dotted = names.dotted(node.func) or ""
            if any(dotted == each or dotted.startswith(f"{each}.") for each in BLOCKING):
                yield node.lineno, dotted


def of_tests(names: Names, is_test: bool) -> Iterator[Finding]:
    for node in ast.walk(names.tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        arguments = {each.arg for each in node.args.args}
        used = sorted(arguments & set(TEST_HELPERS)) or sorted(
            {getattr(each, "id", "") for each in ast.walk(node)} & set(TEST_HELPERS) if is_test else ()
        )
        if used and isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            text = f"{node.name} waits, by {', '.join(used)}: run it by pytest --nameko, or make it async and await"
            yield Finding(node.lineno, Group.WITH_NAMEKO, "test", text)
        if node.name in FIXTURES and any("fixture" in ast.dump(each) for each in node.decorator_list):
            text = f"the fixture {node.name} bears the name of one of txservices': give it another"
            yield Finding(node.lineno, Group.CHANGE, "fixture", text)
