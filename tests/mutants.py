"""`make mutants`: changes the code, one small change at a time, and prints the changes that no test notices.

    python -m tests.mutants                                 every mutant of every module below: that takes long
    python -m tests.mutants rpc events --sample 40 --seed 7

A change is made in memory, in a process of its own: the checkout is never touched, and a program that a test starts
runs the code as it stands. First the tests of a module run once, traced, to learn which tests reach which lines; a
mutant is then given only the tests that reach its line, the quickest first, and ends with the first that fails. A
mutant on a line that no test reaches lives. What may live is in mutants.txt, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
MAY_LIVE = Path(__file__).with_suffix(".txt")
TRACED_MAX = 300.0  # seconds for the traced run of a module's tests
TEST_TIMEOUT = 3.0  # seconds that one test of a mutant may wait, unless it took a third of that without a change
SLACK = 6.0  # seconds that a mutant may take, beside three times what its tests took

# Module -> the tests that it is for: names of modules in tests/, or of classes in them. None needs RabbitMQ or another
# process.
MODULES = {
    "rpc": "test_rpc test_rpc_requests test_rpc_wire test_overload amqp.test_longbodies retry.test_retries"
    " retry.test_parking"
    " retry.test_dead_letters.DeadLetterTests test_lines.Served test_deadlines conformance.test_rpc"
    " conformance.test_replies conformance.test_poison",
    "responder": "test_responder test_rpc test_rpc_requests test_rpc_wire test_every_path conformance.test_rpc"
    " conformance.test_replies conformance.test_poison",
    "calls": "test_calls test_call_ends test_attempts.RetryTests test_attempts.BreakerTests"
    " test_told_of_calls.CallsTests test_awaited test_rpc test_rpc_requests test_rpc_wire conformance.test_rpc"
    " conformance.test_replies",
    "replyqueue": "test_calls test_call_ends test_rpc standalone.test_rpc conformance.test_replies",
    "proxies": "test_calls test_call_ends test_rpc conformance.test_rpc",
    "workers": "test_workers test_worker_failures test_worker_context test_places test_told.WorkersTests"
    " test_awaited test_threads test_containers test_rpc test_rpc_requests test_starving test_busy"
    " test_overload test_deadlines test_lines.Waiting web.test_pool test_asyncio.OnAnotherReactor"
    " amqp.test_longbodies conformance.test_workers",
    "lines": "test_lines.Waiting test_workers test_worker_failures test_places test_busy test_overload"
    " test_deadlines web.test_pool amqp.test_longbodies",
    "busy": "test_busy test_overload",
    "callids": "test_callids test_busy",
    "shared": "test_shared_services",
    "containers": "test_containers test_containers_bound test_shared_services test_threads test_extensions test_runners"
    " test_deadlines test_places test_configured_observers web.test_pool web.test_static monitoring.test_health"
    " conformance.test_containers",
    "deadlines": "test_deadlines",
    "cancelling": "test_deadlines",
    "consumers": "test_consumers test_messaging_consumers test_prefetched test_overload amqp.test_longbodies"
    " conformance.test_messaging conformance.test_events",
    "events": "test_events test_dispatch test_told test_scheduled retry.test_dead_letters retry.test_retries"
    " retry.test_parking conformance.test_events",
    "retry.failures": "retry",
    "retry.marks": "retry",
    "retry.policy": "retry test_attempts.RetryTests",
    "amqp.ondemand": "amqp.test_ondemand amqp.test_delays retry",
    "amqp.delays": "amqp.test_delays retry",
    "amqp.publisher": "amqp.test_publisher amqp.test_nacked amqp.test_publish amqp.test_unwritable amqp.test_leaving"
    " amqp.test_connection amqp.test_flow amqp.test_suspects.SuspectsTests amqp.test_too_large.PublishTests"
    " amqp.test_declarations.DeclarationsTests test_told_of_messages.PublishTests test_looked_at.LookedTests"
    " test_looked_at.DeadlineTests",
    "amqp.connection": "amqp.test_retry amqp.test_keeping amqp.test_connection amqp.test_leaving amqp.test_prefetched"
    " test_told_of_messages",
    "broker.queues": "broker.test_queues broker.test_queue_times broker.test_queue_kinds broker.test_any_order"
    " broker.test_channel broker.test_channel_publishing broker.test_channel_topology",
    "broker.deliveries": "broker.test_queues broker.test_queue_times broker.test_queue_kinds broker.test_any_order"
    " broker.test_channel broker.test_channel_publishing broker.test_channel_topology",
    "broker.arguments": "broker.test_channel_topology broker.test_channel broker.test_queue_kinds"
    " broker.test_exchanges",
    "broker.bindings": "broker.test_exchanges broker.test_channel_topology",
    "attempts": "test_attempts test_httpclient_attempts",
    "breakers": "test_breakers test_attempts test_httpclient_attempts",
    "httpclient": "test_httpclient test_httpclient_attempts",
    "httppool": "test_httpclient test_httpclient_attempts",
    "retry.configured": "retry",
    "retry.jsonlines": "retry command.test_parked.ParkedCommands",
    "retry.parked": "retry command.test_parked.ParkedCommands",
    "once.running": "once",
    "once.store": "once",
    "once.sqlalchemy": "once",
    "monitoring.health": "monitoring.test_health",
    "monitoring.metrics": "monitoring.test_metrics monitoring.test_counters monitoring.test_series",
    "monitoring.series": "monitoring.test_series monitoring.test_metrics",
    "monitoring.counters": "monitoring.test_counters monitoring.test_metrics monitoring.test_answers",
    "monitoring.traces": "monitoring.test_traces monitoring.test_traces_current monitoring.test_traces_sampling"
    " monitoring.test_traces_workers",
    "monitoring.spans": "monitoring.test_traces monitoring.test_traces_current monitoring.test_traces_sampling"
    " monitoring.test_traces_workers",
    "monitoring.w3c": "monitoring.test_w3c monitoring.test_traces",
    "monitoring.fleet": "monitoring.test_fleet monitoring.test_answers",
    "monitoring.answering": "monitoring.test_answers monitoring.test_fleet",
    "web.channel": "web.test_channel web.test_wire web.test_refusals web.test_uploads web.test_site",
    "web.heads": "web.test_channel web.test_received web.test_wire web.test_refusals",
    "web.chunks": "web.test_channel web.test_bodies web.test_wire web.test_uploads",
    "web.received": "web.test_received web.test_channel web.test_refusals web.test_handlers web.test_site"
    " web.test_accesslog web.test_mounts web.test_uploads web.test_told web.test_returns web.test_sending",
    "web.bodies": "web.test_bodies web.test_returns web.test_handlers web.test_eventstream web.test_received"
    " web.test_wire web.test_sending",
    "web.conditional": "web.test_conditional web.test_static",
    "web.cors": "web.test_cors web.test_origins",
    "web.origins": "web.test_origins web.test_cors",
    "web.sessions": "web.test_sessions",
    "web.forwarded": "web.test_forwarded",
    "web.forms": "web.test_forms",
    "serialization": "serialization",
    "serialization.bounds": "serialization",
    "serialization.jsonreader": "serialization",
    "serialization.jsonvalues": "serialization",
    "serialization.msgpackreader": "serialization",
    "serialization.yamlreader": "serialization",
    "wire.codec": "wire amqp.test_channel broker.test_channel",
    "wire.frames": "wire amqp.test_channel broker.test_channel amqp.test_too_large.PublishTests",
    "wire.heartbeat": "wire.test_heartbeat",
    "wire.login": "wire.test_login",
    "wire.tables": "wire",
}

# Changes --------------------------------------------------------------------------------------------------------------

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NOT_LOGIC = {"annotation", "returns", "decorator_list", "type_params", "bases"}


@dataclass(frozen=True)
class Mutant:
    """One change: ``number`` counts those of its module.

    Attributes:
        once: whether it is outside of every function's body, and so is met at the import and never again.
    """

    module: str
    number: int
    line: int
    last_line: int
    where: str
    change: str
    once: bool

    @property
    def name(self) -> str:
        """Its name in mutants.txt: no line number, so that it stays the same when others move."""
        return f"{self.module}: {self.where}: {self.change}"


def changed(node: Any, **fields: Any) -> Any:
    """The node with other fields."""
    other = copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The changed nodes that may take a node's place."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield changed(node, ops=[OPERATORS[type(op)]()])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield changed(node, op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield changed(node, value=not value)
        case ast.Constant(value=int(value) | float(value)):
            yield changed(node, value=value + 1)
        case ast.Call(func=ast.Name(id="min" | "max")):
            pass  # the order of arguments means nothing
        case ast.Call(args=[first, second, *rest]) if not isinstance(second, ast.Starred):
            yield changed(node, args=[second, first, *rest])
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) if not isinstance(
            test, (ast.Compare, ast.UnaryOp, ast.Constant)
        ):
            yield changed(node, test=ast.copy_location(ast.UnaryOp(ast.Not(), test), test))
        case ast.Return(value=ast.AST() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield changed(node, value=ast.copy_location(ast.Constant(None), node))
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete() | ast.Raise():
            yield ast.copy_location(ast.Pass(), node)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Continue() | ast.Break():
            yield ast.copy_location(ast.Pass(), node)


def is_logic(node: ast.AST, where: str) -> bool:
    """Whether a mistake there would be one: not in log lines, texts for people, and values chosen for their size."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))) | ast.Import() | ast.ImportFrom():
            return False
        case ast.FunctionDef(name="__repr__") | ast.JoinedStr() | ast.Assert():
            return False
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return False
        case ast.Assign() | ast.AnnAssign():
            return bool(where) or not isinstance(node.value, (ast.Constant, ast.List, ast.Tuple, ast.BinOp))
    return True


def places(parent: Any, where: str = "", once: bool = True) -> Iterator[tuple[Any, Any, ast.AST, str, bool]]:
    """Every node with what holds it and by which key, the name of the function or class that it stands in, and
    ``Mutant.once``.
    """
    for field, value in ast.iter_fields(parent):
        if field in NOT_LOGIC:
            continue
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            once = field == "args"  # the defaults
        held = enumerate(value) if isinstance(value, list) else [(field, value)]
        for key, node in list(held):
            if not isinstance(node, ast.AST) or not is_logic(node, where):
                continue
            yield value if isinstance(value, list) else parent, key, node, where, once
            name = getattr(node, "name", None) if isinstance(node, ast.stmt) else None
            yield from places(node, f"{where}.{name}".strip(".") if name else where, once)


def put(holder: Any, key: Any, node: ast.AST) -> None:
    if isinstance(holder, list):
        holder[key] = node
    else:
        setattr(holder, key, node)


def mutants(module: str, tree: ast.Module) -> Iterator[Mutant]:
    """Each mutant, while the tree is changed so."""
    number = 0
    parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for holder, key, node, where, once in places(tree):
        parent = parents[id(node)]
        shown: Any = parent if isinstance(node, ast.expr) and isinstance(parent, ast.expr) else node
        for other in changes(node):
            before = header(shown)
            put(holder, key, other)
            change = f"{before} -> {header(other if shown is node else shown)}"
            line = getattr(node, "lineno", 0)
            last = line if hasattr(node, "body") else getattr(node, "end_lineno", line)
            yield Mutant(module, number, line, last, where, change, once)
            put(holder, key, node)
            number += 1


def header(node: ast.AST) -> str:
    """Its source, in one line; of what has a body, the first one."""
    source = ast.unparse(node).replace("lambda :", "lambda:")  # Python 3.10 writes the former
    return " ".join(source.split("\n")[0].split()) if isinstance(node, ast.stmt) else source


# In a process of its own ----------------------------------------------------------------------------------------------


class Finder:
    """Imports one module from a changed tree."""

    def __init__(self, module: str, number: int | None) -> None:
        self.module = module
        self.number = number

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != f"txservices.{self.module}" or self.number is None:
            return None
        spec: Any = PathFinder.find_spec(name, path)
        tree = ast.parse(Path(spec.origin).read_text())
        for mutant in mutants(self.module, tree):
            if mutant.number == self.number:
                spec.loader.get_code = {name: compile(tree, spec.origin, "exec")}.get
        return spec


def run(module: str, number: int | None, tests: dict[str, float]) -> None:
    """Run tests with that mutant; or with none, and print which test takes how long and reaches which lines.

    Each test may wait for a Deferred for so many seconds; trial would give it 120.
    """
    sys.meta_path.insert(0, Finder(module, number))
    from twisted.trial.reporter import Reporter
    from twisted.trial.runner import TestLoader, TrialRunner
    from twisted.trial.unittest import TestCase

    from tests import rabbitmq

    rabbitmq.skip = "mutants are tried in memory"

    file = str(source(module))
    reached: dict[str, set[int]] = {}
    took: dict[str, float] = {}
    current: set[int] = set()

    class Noting(Reporter):
        def startTest(self, test: Any) -> None:
            super().startTest(test)
            self.began = time.monotonic()
            current.clear()

        def addFailure(self, test: Any, fail: Any) -> None:
            super().addFailure(test, fail)
            self.noticed()

        def addError(self, test: Any, error: Any) -> None:
            super().addError(test, error)
            self.noticed()

        def noticed(self) -> None:
            """The mutant is found; what the test would still tidy away goes with the process."""
            if number is not None:
                os._exit(1)

        def stopTest(self, test: Any) -> None:
            super().stopTest(test)
            took[test.id()] = time.monotonic() - self.began
            reached[test.id()] = set(current)

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == file:
            current.add(frame.f_lineno)
            return trace
        return None

    TestCase.getTimeout = lambda test: tests.get(test.id(), TRACED_MAX)
    with open(os.devnull, "w") as nowhere:
        runner = TrialRunner(Noting, stream=nowhere, workingDirectory="trial")
        suite = TestLoader().loadByNames(list(tests), recurse=True)
        if number is None:
            threading.settrace(trace)
            sys.settrace(trace)
        result: Any = runner.run(suite)
        sys.settrace(None)
    if number is None:
        failed = [test.id() for test, _ in [*result.failures, *result.errors] if hasattr(test, "id")]
        print(
            json.dumps({"took": took, "reached": {test: sorted(reached[test]) for test in reached}, "failed": failed})
        )
    sys.stdout.flush()
    os._exit(0 if result.wasSuccessful() else 1)


# From outside ---------------------------------------------------------------------------------------------------------


def source(module: str) -> Path:
    folder = ROOT / "txservices" / module.replace(".", "/")
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def start(module: str, number: int | None, tests: dict[str, float], seconds: float) -> tuple[int, str]:
    """``run`` in a process of its own, that is ended after so many seconds with all that it has started."""
    asked = json.dumps([module, number, tests])
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.mutants", "--run"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder,
            start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            said, _ = child.communicate(asked, timeout=seconds)
            return child.returncode, said
        except subprocess.TimeoutExpired:
            return -1, ""
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()


class Target:
    """A module, and which of its tests reach which lines."""

    def __init__(self, module: str) -> None:
        self.module = module
        names = {f"tests.{name}": TRACED_MAX for name in MODULES[module].split()}
        _, said = start(module, None, names, TRACED_MAX)
        if not said:
            sys.exit(f"{module}: its tests did not end: {' '.join(names)}")
        found = json.loads(said.splitlines()[-1])
        if found["failed"]:
            sys.exit(f"{module}: these fail without any change: {' '.join(found['failed'])}")
        self.took: dict[str, float] = found["took"]
        self.by_line: dict[int, set[str]] = {}
        for test, lines in found["reached"].items():
            for line in lines:
                self.by_line.setdefault(line, set()).add(test)
        self.mutants = list(mutants(module, ast.parse(source(module).read_text())))

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Those that reach its lines, the quickest first; all of them for what is done once, at the import."""
        lines = range(mutant.line, mutant.last_line + 1)
        tests = set().union(*(self.by_line.get(line, ()) for line in lines)) if not mutant.once else set(self.took)
        return sorted(tests, key=self.took.__getitem__)

    def survives(self, mutant: Mutant) -> bool:
        tests = self.tests_of(mutant)
        if not tests:
            return True
        seconds = {test: max(TEST_TIMEOUT, 3 * self.took[test]) for test in tests}
        return start(self.module, mutant.number, seconds, SLACK + 3 * sum(map(self.took.__getitem__, tests)))[0] == 0


def may_live() -> dict[str, str]:
    """The mutants of mutants.txt with their reasons: two lines each."""
    lines = [line for line in MAY_LIVE.read_text().splitlines() if line and not line.startswith("#")]
    return {name: reason.strip() for name, reason in zip(lines[::2], lines[1::2], strict=True)}


def try_all(module: str, sample: int | None, seed: int, jobs: int) -> tuple[int, int]:
    """How many mutants of a module were tried, and how many live; those are printed as they are found."""
    target = Target(module)
    reasons = may_live()
    chosen = [mutant for mutant in target.mutants if mutant.name not in reasons]
    if sample is not None and sample < len(chosen):
        chosen = sorted(random.Random(seed).sample(chosen, sample), key=lambda mutant: mutant.number)
    alive = 0
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, lives in zip(chosen, pool.map(target.survives, chosen), strict=True):
            if lives:
                alive += 1
                place = f"{source(module).relative_to(ROOT)}:{mutant.line}"
                nobody = "" if target.tests_of(mutant) else "  (no test comes here)"
                print(f"{place}: {mutant.where}: {mutant.change}{nobody}", flush=True)
    rate = f"{alive / len(chosen):.0%}" if chosen else "-"
    named = len(target.mutants) - len([mutant for mutant in target.mutants if mutant.name not in reasons])
    print(f"{module}: {alive} of {len(chosen)} live, {rate}; {len(target.mutants)} in all, {named} may", flush=True)
    return len(chosen), alive


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.mutants", description="changes that no test notices")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"all if none is named: {', '.join(MODULES)}")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, by chance")
    parser.add_argument("--seed", type=int, default=1, help="of that chance")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once; as many as there are cores")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        run(*json.load(sys.stdin))
    if unknown := set(chosen.modules) - set(MODULES):
        parser.error(f"no module {', '.join(sorted(unknown))}: there are {', '.join(MODULES)}")
    results = [try_all(name, chosen.sample, chosen.seed, chosen.jobs) for name in chosen.modules or MODULES]
    tried, alive = map(sum, zip(*results, strict=True))
    print(f"{alive} of {tried} live, {alive / max(tried, 1):.1%}")


if __name__ == "__main__":
    main()
