"""The public names: what a service's author imports from ``txservices`` itself."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

import txservices
from tests.conformance.test_names import NAMES as NAMEKOS
from tests.processes import ROOT
from txservices.extensions import Entrypoint
from txservices.rpc import Rpc
from txservices.timer import Timer

NAMES = [
    "AuthToken",
    "BROADCAST",
    "BasicAuth",
    "BearerAuth",
    "CircuitBreaker",
    "CircuitOpen",
    "ClusterRpc",
    "Config",
    "ContextDataProvider",
    "Cors",
    "DependencyProvider",
    "Entrypoint",
    "EventDispatcher",
    "EventStream",
    "Exchange",
    "Extension",
    "HttpClient",
    "HttpRequest",
    "HttpRequestHandler",
    "Language",
    "Mount",
    "Observer",
    "OnceStore",
    "ProviderCollector",
    "Publisher",
    "Queue",
    "Reject",
    "RemoteError",
    "Retry",
    "RpcProxy",
    "RpcTimeout",
    "SERVICE_POOL",
    "SINGLETON",
    "ServerSentEvent",
    "ServiceContainer",
    "ServiceRpc",
    "ServiceRunner",
    "SharedExtension",
    "Static",
    "UnknownService",
    "UserAgent",
    "UserId",
    "WorkerContext",
    "consume",
    "event_handler",
    "http",
    "in_reactor",
    "rpc",
    "run_services",
    "timer",
]


def fresh(code: str) -> str:
    """The output of a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.stdout.strip() or done.stderr


def in_the_reference() -> set[str]:
    """The modules of which the guide's reference has a section."""
    folder = os.path.join(ROOT, "docs", "reference")
    found: set[str] = set()
    for page in os.listdir(folder):
        with open(os.path.join(folder, page), encoding="utf-8") as file:
            found.update(re.findall(r"automodule:: txservices\.([\w.]+)", file.read()))
    return found


class PublicNames(SynchronousTestCase):
    """``from txservices import …``."""

    def test_names(self) -> None:
        """They are these: one that comes or goes is a change for every user."""
        self.assertEqual(sorted(txservices.WHERE), sorted(NAMES))
        self.assertEqual(sorted(txservices.__all__), sorted([*NAMES, "__version__"]))
        self.assertTrue(set(NAMES) <= set(dir(txservices)))

    def test_same(self) -> None:
        """Each is the one of its module."""
        for name, where in txservices.WHERE.items():
            there = getattr(sys.modules.get(where) or __import__(where, fromlist=["_"]), name)
            here = getattr(txservices, name)
            if isinstance(here, ModuleType):
                here = vars(here)[name]
            self.assertEqual(here, there, name)

    def test_types(self) -> None:
        """A type checker is told of the same names, from the same modules."""
        with open(os.path.join(ROOT, "txservices", "__init__.py"), encoding="utf-8") as file:
            tree = ast.parse(file.read())
        told = {
            alias.asname: node.module
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If)
            for node in branch.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        self.assertEqual(told, txservices.WHERE)

    def test_every_public_module(self) -> None:
        """Each module that a user imports from lists its names, all of which are there, nameko's among them."""
        modules = {*(where.partition(".")[2] for where in txservices.WHERE.values()), *NAMEKOS, *in_the_reference()}
        for module in sorted(modules):
            there = import_module(f"txservices.{module}")
            self.assertEqual([name for name in there.__all__ if not hasattr(there, name)], [], module)
            self.assertEqual(set(NAMEKOS.get(module, "").split()) - set(there.__all__), set(), module)

    def test_unknown(self) -> None:
        """A missing name is an AttributeError, so that ``from txservices import nonsense`` is an ImportError."""
        self.assertRaises(AttributeError, getattr, txservices, "nonsense")

    def test_decorators(self) -> None:
        """``rpc`` and ``timer`` declare entrypoints, bare and with options, whatever was imported before them."""
        from txservices import rpc, timer

        class Service:
            name = "service"

            @rpc
            def bare(self) -> None: ...

            @rpc(expected_exceptions=ValueError)
            def with_options(self) -> None: ...

            @timer(interval=5)
            def tick(self) -> None: ...

        def declared(method: object) -> Entrypoint:
            (entrypoint,) = method.txservices_entrypoints  # noted by the decorator
            found: Entrypoint = entrypoint
            return found

        self.assertIsInstance(declared(Service.bare), Rpc)
        self.assertEqual(declared(Service.with_options).expected_exceptions, (ValueError,))
        self.assertIsInstance(declared(Service.tick), Timer)

    def test_first_import(self) -> None:
        """They can be the first that is imported of all, and the module's own names stay in reach."""
        code = "from txservices import rpc, timer, RpcProxy; import txservices.rpc; "
        code += "print(callable(rpc), callable(timer), txservices.rpc.RpcProxy is RpcProxy)"
        self.assertEqual(fresh(code), "True True True")

    def test_lazy(self) -> None:
        """The package by itself loads nothing; one name loads no more than its module needs."""
        code = "import sys, txservices; print([name for name in sys.modules if name.startswith(('twisted', 'klein'))])"
        self.assertEqual(fresh(code), "[]")
        code = "import sys; from txservices import timer; print('txservices.amqp' in sys.modules)"
        self.assertEqual(fresh(code), "False")
