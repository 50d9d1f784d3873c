"""``txservices migrate``: the findings in code that was written for nameko, and the edits."""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SynchronousTestCase

from tests.command.folder import TypingCase
from txservices.migration.checking.findings import Edit, Group, Report, edited
from txservices.migration.checking.reading import read
from txservices.migration.checking.report import NO_NEWLINE, diff

HEAD = """\
from functools import partial
import requests
from nameko.rpc import RpcProxy, ClusterRpc, rpc
from nameko.events import EventDispatcher, event_handler
"""
SERVICE = """
class Service:
    name = "service"
    y = RpcProxy("y")
    cluster = ClusterRpc()
    dispatch = EventDispatcher()

    @rpc
    def method(self, a=1):
        {}
"""


def found(text: str, path: str = "service.py") -> set[tuple[str, str]]:
    return {(each.kind, each.group.name) for each in read(path, text).findings}


class Results(SynchronousTestCase):
    """Where the result of a call is read."""

    def reads(self, *lines: str, more: str = "") -> int:
        text = HEAD + SERVICE.format("\n        ".join(lines)) + more
        return sum(each.kind == "result" for each in read("service.py", text).findings)

    def test_read(self) -> None:
        """Each way to use it is found."""
        for lines in [
            ("return self.y.get(a) + 1",),
            ("return self.y.get(a)['key']",),
            ("return self.y.get(a).key",),
            ("if self.y.get(a):", "    return 1"),
            ("return not self.y.get(a)",),
            ("return self.y.get(a) == 1",),
            ("for each in self.y.get(a):", "    print(each)"),
            ("return [each for each in self.y.get(a)]",),
            ("return [self.y.get(each) for each in range(3)]",),
            ("return {each: self.y.get(each) for each in range(3)}",),
            ("return sum(self.y.get(each) for each in range(3))",),
            ("return f'{self.y.get(a)}'",),
            ("return {'key': self.y.get(a)}",),
            ("return [self.y.get(a)]",),
            ("return len(self.y.get(a))",),
            ("x = self.y.get(a)", "return x.key"),
            ("x = y = self.y.get(a)", "return y + 1"),
            ("x, z = self.y.get(a)",),
            ("self.kept = self.y.get(a)",),
            ("ask = self.y.get", "return ask(a) + 1"),
            ("y = self.y", "return y.get(a) + 1"),
            ("return self.cluster.other.get(a) + 1",),
            ("return self.cluster['other'].get(a) + 1",),
            ("return getattr(self.y, 'get')(a) + 1",),
            ("return partial(self.y.get, a)() + 1",),
            ("return list(map(self.y.get, [1, 2]))",),
            ("return self.y.get.options(timeout=1)(a) + 1",),
            ("reply = self.y.get.call_async(a)", "return reply.result() + 1"),
            ("if (x := self.y.get(a)):", "    return x"),
            ("with self.y.get(a):", "    pass"),
            ("while self.y.get(a):", "    pass"),
            ("raise ValueError(self.y.get(a))",),
            ("return 1 if self.y.get(a) else 2",),
            ("try:", "    return self.y.get(a) + 1", "except ValueError:", "    return self.y.get(a) + 2"),
        ]:
            self.assertGreaterEqual(self.reads(*lines), 1, lines)

    def test_not_read(self) -> None:
        """What only passes it on, or looks at nothing, is left alone."""
        for lines in [
            ("return self.y.get(a)",),
            ("self.y.get(a)",),
            ("x = self.y.get(a)", "return x"),
            ("return self.y.get(a) if a else self.y.other(a)",),
            ("self.dispatch('type', a)",),
            ("return self.y.get.call_async(a)",),
            ("return a + 1",),
            ("y = 3", "return y + 1"),
            ("return requests",),
        ]:
            self.assertEqual(self.reads(*lines), 0, lines)

    def test_helpers(self) -> None:
        """It is followed through functions of the module: what they return, and what they are given."""
        for lines, more in [
            (("return self.helper(a) + 1",), "\n    def helper(self, a):\n        return self.y.get(a)\n"),
            (
                ("return self.one(a) + 1",),
                "\n    def one(self, a): return self.two(a)\n    def two(self, a): return self.y.get(a)\n",
            ),
            (("return helper(self.y, a) + 1",), "\ndef helper(y, a):\n    return y.get(a)\n"),
            (("return helper(self.y.get)",), "\ndef helper(get):\n    return get(1) + 1\n"),
            (("return helper(get=self.y.get)",), "\ndef helper(get=None):\n    return get(1) + 1\n"),
            (("return helper(self.y.get(a))",), "\ndef helper(value):\n    return value + 1\n"),
            (
                ("return self.kept()",),
                "\n    def kept(self):\n        self.proxy = self.y\n        return self.proxy.get(1) + 1\n",
            ),
        ]:
            self.assertGreaterEqual(self.reads(*lines, more=more), 1, more)
        own = "\nclass Mine(RpcProxy):\n    pass\n\nclass Other:\n    m = Mine('m')\n    @rpc\n"
        own += "    def x(self): return self.m.x() + 1\n"
        self.assertGreaterEqual(self.reads("pass", more=own), 1)


class Rules(SynchronousTestCase):
    """Everything else that differs."""

    def test_each(self) -> None:
        """Each kind of thing has its group."""
        for text, kind, group in [
            ("import gevent\nimport nameko", "gevent", "CANNOT"),
            ("from gevent import monkey; monkey.patch_all()\nimport nameko", "gevent", "CANNOT"),
            ("import nameko\nimport urllib2", "python-2", "CANNOT"),
            ("from nameko.containers import ServiceContainer as C\nC._run_worker = 1", "private", "CHANGE"),
            ("import eventlet\neventlet.spawn(f)", "eventlet", "WITH_NAMEKO"),
            ("from eventlet import wsgi", "eventlet", "CHANGE"),
            ("import eventlet\neventlet.serve(1)", "eventlet", "CHANGE"),
            ("import eventlet\neventlet.listen(1)", "eventlet", "WITH_NAMEKO"),
            ("from eventlet.green import socket", "eventlet", "WITH_NAMEKO"),
            ("from nameko import config\nA = config['A']", "config", "WITH_NAMEKO"),
            ("from nameko.cli.main import main", "command-line", "WITH_NAMEKO"),
            ("from nameko.standalone.rpc import ClusterRpcProxy", "standalone", "WITH_NAMEKO"),
            ("from nameko.legacy.rpc import x", "missing", "CANNOT"),
            ("import nameko\nfrom kombu import Connection", "kombu", "WITH_NAMEKO"),
            ("import nameko\nfrom kombu.pools import producers", "kombu", "WITH_NAMEKO"),
            ("from nameko_sqlalchemy import DatabaseSession", "package", "WITH_NAMEKO"),
            ("from nameko_grpc.entrypoint import Grpc", "package", "WITH_NAMEKO"),
            ("import nameko_salesforce", "package", "CHANGE"),
            ("import nameko_injector", "package", "CANNOT"),
            ("from nameko_amqp_retry import Backoff", "package", "WITH_NAMEKO"),
            ("import flask_nameko", "package", "CHANGE"),
            ("import nameko_unheard_of", "package", "WITH_NAMEKO"),
            ("import nameko\ncontainer._worker_pool.waitall()", "private", "CHANGE"),
            ("import nameko\nprint 'hello'", "syntax", "CANNOT"),
            ("import nameko\ndef f(:", "syntax", "CANNOT"),
            ("import nameko\n\0", "syntax", "CANNOT"),
            (HEAD + SERVICE.format("return requests.get('http://x').text"), "blocking", "WITH_NAMEKO"),
            (HEAD + SERVICE.format("import time; time.sleep(1)"), "blocking", "WITH_NAMEKO"),
            (
                "from nameko.extensions import DependencyProvider\nimport psycopg2\nclass Db(DependencyProvider):\n"
                "    def setup(self):\n        self.db = psycopg2.connect('x')",
                "blocking",
                "WITH_NAMEKO",
            ),
            (
                "from nameko.extensions import Entrypoint\nclass E(Entrypoint):\n"
                "    def start(self):\n        self.container.spawn_managed_thread(self.run)",
                "managed-thread",
                "WITH_NAMEKO",
            ),
        ]:
            self.assertIn((kind, group), found(text), text)

    def test_tests(self) -> None:
        """Tests that wait, and a fixture that has the name of one of ours."""
        text = "from nameko.testing.services import entrypoint_hook\ndef test_x(container_factory):\n    pass\n"
        self.assertIn(("test", "WITH_NAMEKO"), found(text, "test_x.py"))
        text = "import nameko\nimport pytest\n@pytest.fixture\ndef txservices_stage(): pass\n"
        self.assertIn(("fixture", "CHANGE"), found(text, "conftest.py"))

    def test_nothing(self) -> None:
        """Code that has nothing to do with nameko, or only with what is the same here, has no findings."""
        for text in ["x = 1", "import requests\nrequests.get('x')", HEAD + SERVICE.format("return self.y.get(a)"), ""]:
            report = read("m.py", text)
            self.assertEqual((report.findings, report.group), ([], Group.AS_IT_IS), text)


class Edits(SynchronousTestCase):
    """The edits of ``migrate apply``."""

    def applied(self, text: str) -> str:
        report = read("service.py", text)
        new = edited(text, report.edits)
        compile(new, "service.py", "exec")
        return new

    def method(self, *lines: str) -> str:
        new = self.applied(HEAD + SERVICE.format("\n        ".join(lines)))
        return new[new.index("class Service") :]

    def test_imports(self) -> None:
        """Imports lead to ours, and nothing else in their lines changes."""
        for old, new in [
            ("from nameko.rpc import rpc  # as it was", "from txservices.rpc import rpc  # as it was"),
            (
                "from   nameko.events  import (\n    event_handler,\n)",
                "from   txservices.events  import (\n    event_handler,\n)",
            ),
            ("import nameko.rpc as r", "import txservices.rpc as r"),
            (
                "from nameko.standalone.rpc import ClusterRpcProxy",
                "from txservices.standalone.blocking import ClusterRpcProxy",
            ),
            ("from nameko import config", "from nameko import config"),
            ("import nameko", "import nameko"),
        ]:
            self.assertEqual(self.applied(old), new)

    def test_await(self) -> None:
        """``await`` where each place is safe, with brackets where they are needed."""
        for old, new in [
            ("return self.y.get(a) + 1", "return (await self.y.get(a)) + 1"),
            ("return self.y.get(a)['key']", "return (await self.y.get(a))['key']"),
            ("return {'ü': self.y.get(a)}", "return {'ü': await self.y.get(a)}"),
            ("x = self.y.get(a); return x + 1", "x = await self.y.get(a); return x + 1"),
            ("return [self.y.get(n) for n in (1, 2)]", "return [await self.y.get(n) for n in (1, 2)]"),
        ]:
            written = self.method(old)
            self.assertIn("    async def method(self, a=1):\n", written)
            self.assertIn(f"        {new}\n", written)
            self.assertNotIn("blocking", written)

    def test_blocking(self) -> None:
        """``blocking = True`` where it is not safe, or where the method waits for something else."""
        for lines in [
            ("return list(self.y.get(n) for n in (1, 2))",),
            ("return [lambda: self.y.get(a) + 1]",),
            ("return requests.get('http://x').text",),
            ("yield self.y.get(a) + 1",),
        ]:
            written = self.method(*lines)
            self.assertIn('    name = "service"\n    blocking = True\n', written)
            self.assertNotIn("await", written)

    def test_left_alone(self) -> None:
        """A class that says ``blocking`` itself, and methods that are async already."""
        text = HEAD + SERVICE.format("return self.y.get(a) + 1").replace('"service"', '"service"\n    blocking = False')
        self.assertEqual(self.applied(text), text.replace("nameko", "txservices"))
        text = HEAD + SERVICE.format("return (await self.y.get(a)) + 1").replace("def method", "async def method")
        self.assertEqual(self.applied(text), text.replace("nameko", "txservices"))

    def test_diff(self) -> None:
        """A file without a last newline is told as ``diff`` does, so that ``patch`` can read it."""
        text = "from nameko.rpc import rpc"
        lines = diff(read("m.py", text), text).splitlines()
        self.assertEqual(lines[3:], [f"-{text}", NO_NEWLINE, "+from txservices.rpc import rpc", NO_NEWLINE])

    def test_line_ends(self) -> None:
        """Line ends stay what they are."""
        self.assertEqual(
            self.applied("import os\r\nfrom nameko.rpc import rpc\r\n"),
            "import os\r\nfrom txservices.rpc import rpc\r\n",
        )
        self.assertEqual(edited("a\nb\n", [Edit(2, 0, 2, 1, "c"), Edit(1, 1, 1, 1, "d")]), "ad\nc\n")
        self.assertEqual(Report("x").group, Group.AS_IT_IS)


class Typed(TypingCase):
    """``txservices migrate``."""

    def setUp(self) -> None:
        super().setUp()
        self.write("app/service.py", HEAD + SERVICE.format("return self.y.get(a) + 1"))
        self.write("app/.venv/other.py", "print 'never read'")
        self.write("app/plain.py", "x = 1\n")

    def test_check(self) -> None:
        """A line a finding, a summary, and the worst group as the exit status."""
        status, out, err = self.txservices("migrate", "check", "app")
        self.assertEqual((status, err), (0, ""))
        self.assertIn(
            "app/service.py: runs with --nameko, or with blocking = True\n  14: the value of self.y.get(a) is", out
        )
        self.assertIn("2 files: 1 runs as it is, 1 runs with --nameko, or with blocking = True\n", out)
        for text, worst in [("import nameko\ncontainer._died", 3), ("import gevent, nameko", 4)]:
            self.write("app/more.py", text)
            self.assertEqual(self.txservices("migrate", "check", "app")[0], worst)

    def test_json(self) -> None:
        """The same for programs."""
        status, out, _ = self.txservices("migrate", "check", "--json", "app")
        told = json.loads(out)
        self.assertEqual(told["summary"], {"as_it_is": 1, "with_nameko": 1, "change": 0, "cannot": 0})
        (finding,) = next(each for each in told["files"] if each["path"].endswith("service.py"))["findings"]
        self.assertEqual((finding["line"], finding["kind"], finding["group"]), (14, "result", "with_nameko"))
        self.assertEqual(status, 0)

    def test_configuration(self) -> None:
        """What a configuration file lacks, and what it has for nothing."""
        self.write("app/web.py", "from nameko.web.handlers import http\n")
        self.write(
            "config.yaml", "serializer: pickle\nTRANSPORT_OPTIONS: {}\nCONCURRENCY_BACKEND: gevent\nPREFETCH_COUNT: 1\n"
        )
        status, out, _ = self.txservices("migrate", "check", "app", "--config", "config.yaml")
        self.assertEqual(status, 4)
        for words in ("AMQP_URI is absent", "0.0.0.0:8000", "1: pickle", "TRANSPORT_OPTIONS are kombu's"):
            self.assertIn(words, out)
        self.assertIn("3: CONCURRENCY_BACKEND is of a pre-release of nameko 3", out)
        self.assertIn("4: PREFETCH_COUNT means nothing here: is prefetch_count meant?", out)

    def test_apply(self) -> None:
        """A diff, or the files themselves."""
        status, out, _ = self.txservices("migrate", "apply", "app")
        self.assertEqual(status, 0)
        self.assertIn("+        return (await self.y.get(a)) + 1\n", out)
        with open("app/service.py", encoding="utf-8") as file:
            self.assertIn("from nameko.rpc", file.read())
        status, out, _ = self.txservices("migrate", "apply", "--write", "app")
        self.assertEqual((status, out), (0, f"{os.path.join('app', 'service.py')}: 5 changes\n"))
        with open("app/service.py", encoding="utf-8") as file:
            written = file.read()
        self.assertIn("from txservices.rpc", written)
        self.assertEqual(self.txservices("migrate", "apply", "app")[1], "nothing to change\n")
        self.assertEqual(self.txservices("migrate", "check", "app", "--diff")[0], 0)

    def test_mistakes(self) -> None:
        """A file that is no text, and one that isn't there."""
        with open("app/bad.py", "wb") as file:
            file.write(b"# \xff\xfe\n")
        status, _, err = self.txservices("migrate", "check", "app")
        self.assertEqual(status, 2)
        self.assertIn("bad.py can't be read as text", err)
        self.assertEqual(self.txservices("migrate", "check", "nowhere")[0], 2)
