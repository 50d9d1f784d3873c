"""Finding service classes by `module[:Class]`: which are found, and what is said about a wrong name."""

from __future__ import annotations

import importlib
import os
import re
import sys

from tests.command.folder import FolderCase
from txservices.command import exits, loading
from txservices.exceptions import CommandError

SERVICES = """
from txservices.timer import timer

class Base:
    @timer(interval=1)
    def tick(self): pass

class One(Base):
    name = "one"

class Two(Base):
    name = "two"

class Helper:
    pass

value = 1
"""


class Loading(FolderCase):
    """Modules in a folder of their own, as if it were the working folder."""

    def names(self, given: str) -> list[str]:
        return [cls.__name__ for cls in loading.find_services(given, self.folder)]

    def mistake(self, given: str) -> str:
        return str(self.assertRaises(CommandError, loading.find_services, given, self.folder))

    def test_every_service_of_a_module(self) -> None:
        """If no class is named, all classes with an entrypoint are meant, without the nameless bases of others."""
        self.write("tx_some.py", SERVICES)
        self.assertEqual(self.names("tx_some"), ["One", "Two"])

    def test_one_class(self) -> None:
        """If a class is named, that one is meant."""
        self.write("tx_one.py", SERVICES)
        self.assertEqual(self.names("tx_one:Two"), ["Two"])

    def test_dotted(self) -> None:
        """A module inside a package is found by its dotted name."""
        self.write("tx_package/__init__.py", "")
        self.write("tx_package/inner.py", SERVICES)
        self.assertEqual(self.names("tx_package.inner:One"), ["One"])

    def test_name_of_a_standard_module(self) -> None:
        """`http.py` in the folder is what `http` means here, and `import http` stays the standard one."""
        self.write("http.py", SERVICES)
        self.assertEqual(self.names("http"), ["One", "Two"])
        self.assertEqual(self.names("http:One"), ["One"])
        self.assertTrue(importlib.import_module("http").HTTPStatus)
        self.assertEqual(sys.modules["http.py"].__file__, os.path.join(self.folder, "http.py"))

    def test_name_of_a_module_that_is_loaded(self) -> None:
        """The file in the folder is meant, too, when another module of that name is in use already."""
        self.write("click.py", SERVICES)
        before = importlib.import_module("click")
        self.assertEqual(self.names("click"), ["One", "Two"])
        self.assertIs(importlib.import_module("click"), before)

    def test_folder_is_behind_the_standard_library(self) -> None:
        """Modules beside the service can be imported; they hide no standard one."""
        self.write("tx_helper.py", "value = 7")
        self.write("json.py", "raise RuntimeError('in the way')")
        self.write("tx_user.py", "import importlib, json, tx_helper\n" + SERVICES)
        self.assertEqual(self.names("tx_user:One"), ["One"])
        self.assertGreater(sys.path.index(self.folder), sys.path.index(os.path.dirname(os.__file__)))

    def test_no_such_module(self) -> None:
        """A name that is nowhere is told with the folder that was looked in."""
        self.assertIn("no module named 'tx_nowhere'", self.mistake("tx_nowhere"))
        self.assertIn(self.folder, self.mistake("tx_nowhere"))
        self.assertIn("no module named 'tx_nowhere.inner'", self.mistake("tx_nowhere.inner:Class"))

    def test_file_for_a_module(self) -> None:
        """`app.py` typed for `app` is answered with `app`, a path with its dotted name."""
        self.write("tx_typed.py", SERVICES)
        self.write("tx_folder/app.py", SERVICES)
        self.assertEqual(self.mistake("tx_typed.py"), "no module named 'tx_typed.py': did you mean 'tx_typed'?")
        self.assertIn("did you mean 'tx_folder.app'?", self.mistake("tx_folder/app.py"))
        self.assertIn("did you mean 'tx_folder.app'?", self.mistake("./tx_folder/app.py"))

    def test_no_service(self) -> None:
        """A module without a service says what makes one."""
        self.write("tx_empty.py", "class Plain:\n    name = 'plain'\n    def method(self): pass\n")
        self.assertIn("nothing in module 'tx_empty' looks like a service", self.mistake("tx_empty"))
        self.assertIn("@rpc", self.mistake("tx_empty"))

    def test_wrong_class(self) -> None:
        """The message about a missing class names those that exist; a value is not a class."""
        self.write("tx_wrong.py", SERVICES)
        self.assertEqual(
            self.mistake("tx_wrong:Three"),
            "no class 'Three' in module 'tx_wrong': its service classes are One, Two",
        )
        self.assertIn("tx_wrong:value is not a class", self.mistake("tx_wrong:value"))

    def test_circle(self) -> None:
        """Modules that import each other are no missing module: the error is Python's own, with its traceback."""
        self.write("tx_circle.py", "from tx_other import Other\nclass One: pass\n")
        self.write("tx_other.py", "from tx_circle import One\nclass Other: pass\n")
        broken = self.assertRaises(loading.BrokenModule, loading.find_services, "tx_circle", self.folder)
        self.assertIn("module 'tx_circle' could not be imported: ImportError: cannot import name 'One'", str(broken))
        self.assertIn("tx_other.py", exits.traceback_of(broken.__cause__))

    def test_two_of_one_name(self) -> None:
        """Two classes of one name are a mistake; the same class by two ways is one service."""
        one, other, two = (type(each, (), {"name": name}) for each, name in (("A", "shop"), ("B", "shop"), ("C", "x")))
        self.assertEqual(loading.of_different_names([one, two, one]), [one, two])
        error = self.assertRaises(CommandError, loading.of_different_names, [one, two, other])
        self.assertRegex(str(error), r"\.A and \S+\.B are both called 'shop': give them different names, or .*:B$")

    def test_refused_by_a_decorator(self) -> None:
        """A mistake that we have found in a module is one line, with the user's own line, and needs no traceback."""
        for text, words in [
            ("@timer", "the decorator above One.tick needs interval: write it with its arguments in brackets"),
            ("@timer()", "the decorator above One.tick missing 1 required positional argument: 'interval'"),
            ("@timer(1, intervall=1)", "the decorator above One.tick got an unexpected keyword argument 'intervall'"),
            ("@timer('1')", "timer(interval='1'): give the seconds between two ticks, 0 or more"),
            ("@timer(1)\n    @staticmethod", "the decorator above One.tick is on a staticmethod, which is no method: "),
        ]:
            name = f"tx_refused{len(sys.modules)}"
            module = f"from txservices.timer import timer\nclass One:\n    {text}\n    def tick(self): pass\n"
            self.write(f"{name}.py", module)
            told = self.mistake(name)
            # Python 3.10 may name the line of the method below the decorator
            line = "3" if sys.version_info >= (3, 11) else "[3-5]"
            place = re.escape(f"{os.path.join(self.folder, name)}.py, line ") + line
            self.assertRegex(told, f"^{place}: {re.escape(words)}")

    def test_broken_module(self) -> None:
        """An error inside the module is told as such, with its own traceback from the user's line on."""
        for name, text, error in [
            ("tx_imports", "import tx_missing_dependency", "ModuleNotFoundError: No module named"),
            ("tx_raises", "1 / 0", "ZeroDivisionError: division by zero"),
            ("tx_syntax", "def", "SyntaxError: invalid syntax"),
        ]:
            self.write(f"{name}.py", text)
            broken = self.assertRaises(loading.BrokenModule, loading.find_services, name, self.folder)
            self.assertIn(f"module '{name}' could not be imported: {error}", str(broken))
            trace = exits.traceback_of(broken.__cause__)
            self.assertIn(f"{name}.py", trace)
            self.assertNotIn("loading.py", trace)
