"""The tool behind `make mutants`: which changes it makes, and that a changed module is what its importer gets."""

from __future__ import annotations

import ast
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from twisted.python import reflect
from twisted.trial.unittest import SynchronousTestCase

from tests import mutants
from txservices import utils

CASES = {
    "if a < b: pass": ["a < b -> a <= b"],
    "if a is None: pass": ["a is None -> a is not None"],
    "if a: pass": ["if a: -> if not a:"],
    "if not a: pass": ["not a -> a"],
    "x = a and b": ["a and b -> a or b"],
    "x = y(a, b, c)": ["y(a, b, c) -> y(b, a, c)"],
    "x = y(a)": [],
    "x = y[1]": ["y[1] -> y[2]"],
    "x = y(True)": ["y(True) -> y(False)"],
    "x += a": ["x += a -> x -= a", "x += a -> pass"],
    "x.y = a": ["x.y = a -> pass"],
    "y(a)": ["y(a) -> pass"],
    "return a": ["return a -> return None"],
    "return": [],
    "del x[a]": ["del x[a] -> pass"],
    "raise a": ["raise a -> pass"],
    "log.info('a', b)": [],
    "x: Table[1, 2] = a": [],
}


def changes(body: str) -> list[str]:
    source = f"def function():\n    {body}"
    return [mutant.change for mutant in mutants.mutants("module", ast.parse(source))]


class Changes(SynchronousTestCase):
    """One small change at a time."""

    def test_table(self) -> None:
        """Each kind of statement and expression is changed in its way, and log lines and annotations in none."""
        self.assertEqual({body: changes(body) for body in CASES}, CASES)

    def test_tree_as_before(self) -> None:
        """After all of them the tree is what it was."""
        tree = ast.parse(mutants.source("broker.queues").read_text())
        before = ast.dump(tree)
        found = list(mutants.mutants("broker.queues", tree))
        self.assertEqual(ast.dump(tree), before)
        self.assertGreater(len(found), 100)

    def test_chosen_numbers(self) -> None:
        """A module's named numbers are values that somebody chose: no test is to hold them."""
        self.assertEqual(list(mutants.mutants("module", ast.parse("SECONDS = 5\nNAMES = ('a', 'b')"))), [])

    def test_place(self) -> None:
        """A mutant says in which function it is, and on which lines."""
        tree = ast.parse("class A:\n    async def b(self):\n        if (c and\n            d):\n            e()")
        found = [(each.where, each.line, each.last_line) for each in mutants.mutants("module", tree)]
        self.assertEqual(found, [("A.b", 3, 3), ("A.b", 3, 4), ("A.b", 5, 5)])


class Running(SynchronousTestCase):
    """The part of a mutant's own process that needs no process."""

    def test_changed_module(self) -> None:
        """The importer gets the module with that one change, under its own name, and the file is as it was."""
        text = mutants.source("utils.waiting").read_text()
        [first, *_] = mutants.mutants("utils.waiting", ast.parse(text))
        self.assertEqual(first.change, "return len(self.waiting) -> return None")
        spec = mutants.Finder("utils.waiting", first.number).find_spec("txservices.utils.waiting", utils.__path__)
        changed = module_from_spec(spec)
        spec.loader.exec_module(changed)
        self.assertEqual(changed.__name__, "txservices.utils.waiting")
        self.assertIsNone(changed.Waiters.__len__(changed.Waiters()))

    def test_other_modules(self) -> None:
        """Other modules are imported as always."""
        self.assertIsNone(mutants.Finder("rpc", 1).find_spec("txservices.events"))

    def test_table_of_modules(self) -> None:
        """Every module that is named is there, and so are its tests."""
        for module, tests in mutants.MODULES.items():
            self.assertTrue(mutants.source(module).exists(), module)
            for name in tests.split():
                found: Any = reflect.namedAny(f"tests.{name}")
                self.assertTrue(isinstance(found, (type, ModuleType)), name)

    def test_reasons(self) -> None:
        """Every mutant that may live is one that there is, and has its reason."""
        may_live = mutants.may_live()
        self.assertNotIn("", may_live.values())
        for module in {name.partition(": ")[0] for name in may_live}:
            self.assertIn(module, mutants.MODULES)
            there = {each.name for each in mutants.mutants(module, ast.parse(mutants.source(module).read_text()))}
            named = {name for name in may_live if name.startswith(f"{module}: ")}
            self.assertEqual(named - there, set(), "in mutants.txt, and no mutant any more")
