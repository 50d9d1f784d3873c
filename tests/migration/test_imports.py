"""The import hook: where nameko's and eventlet's names lead."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.test_names import NAMES, NOT_HERE
from txservices.exceptions import ConfigurationError
from txservices.messaging import encode_to_headers
from txservices.migration import imports
from txservices.migration.settings import config


class HookCase(SynchronousTestCase):
    """A test with the hook in place."""

    def setUp(self) -> None:
        if "nameko" in sys.modules or "eventlet" in sys.modules:
            imports.uninstall()  # a test before this one has imported the real one
        imports.install({"PLACE": "here"})
        self.addCleanup(config.clear)
        self.addCleanup(imports.uninstall)


class Names(HookCase):
    """What is found."""

    def test_every_name(self) -> None:
        """Each name that nameko's users import is there under nameko's own path."""
        missing = [
            f"{module}.{name}"
            for module, names in NAMES.items()
            for name in names.split()
            if not hasattr(import_module(f"nameko.{module}"), name)
            and (module, name) not in (("testing.pytest", name), ("amqp.publish", name))
        ]
        self.assertEqual(missing, [])
        self.assertTrue(NOT_HERE)

    def test_names_of_others(self) -> None:
        """Packages import from nameko's modules what these have imported from werkzeug."""
        for module, name in (("web.handlers", "Response"), ("web.server", "HTTPException")):
            self.assertTrue(hasattr(import_module(f"nameko.{module}"), name))

    def test_one_object(self) -> None:
        """A module is the same under both names, so that a patch of one is a patch of the other."""
        for name in ("timer", "contextdata", "utils.retry", "web.handlers"):
            self.assertIs(import_module(f"nameko.{name}"), import_module(f"txservices.{name}"))

    def test_packages_of_ours_stay(self) -> None:
        """A module that waits is nameko's alone: ours of the same name stays where it was."""
        theirs = import_module("nameko.testing.services")
        ours = import_module("txservices.testing").services
        self.assertIsNot(theirs, ours)
        self.assertEqual(ours.__name__, "txservices.testing.services")
        self.assertIs(import_module("nameko.testing").services, theirs)

    def test_config(self) -> None:
        """``nameko.config`` is the configuration, also as an attribute of the package."""
        import nameko
        from nameko import config as found

        self.assertIs(found, nameko.config)
        self.assertEqual(found["PLACE"], "here")
        with found.patch({"PLACE": "there", "MORE": 1}):
            self.assertEqual(dict(found), {"PLACE": "there", "MORE": 1})
        with found.patch({"ONLY": 1}, clear=True):
            self.assertEqual(dict(found), {"ONLY": 1})
        self.assertEqual(dict(found), {"PLACE": "here"})
        patched = found.patch({"PLACE": "in"})(lambda: found["PLACE"])
        self.assertEqual((patched(), patched(), found["PLACE"]), ("in", "in", "here"))

    def test_standalone_context(self) -> None:
        """A standalone proxy's context is its ``_worker_ctx.data``, and what is changed there goes along with calls."""
        from nameko.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy

        config.update({"AMQP_URI": "amqp://127.0.0.1"})
        for proxy in (ClusterRpcProxy(context_data={"language": "en"}), ServiceRpcProxy("x", dict(config), {"a": 1})):
            context = proxy.proxy()._worker_ctx
            self.assertIs(context, proxy._worker_ctx)
            self.assertNotIn("call_id_stack", context.data)
            context.data.clear()
            context.data["tenant"] = "t"
            sent = encode_to_headers(proxy.caller.context_data)
            self.assertEqual(sorted(sent), ["nameko.call_id_stack", "nameko.tenant"])

    def test_green_modules(self) -> None:
        """``eventlet.green.x`` is the standard library's ``x``."""
        import socket
        import urllib.request

        self.assertIs(import_module("eventlet.green.socket"), socket)
        self.assertIs(import_module("eventlet.green.urllib.request"), urllib.request)


class Mistakes(HookCase):
    """What is not here."""

    def test_modules(self) -> None:
        """A module without a counterpart is told by its name, with what to do."""
        for name, words in [
            ("nameko.legacy", "docs/migrating.md"),
            ("nameko.web.nothing", "docs/migrating.md"),
            ("eventlet.wsgi", "@http"),
            ("eventlet.backdoor", "--backdoor-port"),
        ]:
            with self.assertRaises(ModuleNotFoundError) as raised:
                import_module(name)
            self.assertIn(f"{name} has no counterpart", str(raised.exception))
            self.assertIn(words, str(raised.exception))
            self.assertEqual(raised.exception.name, name)

    def test_attributes(self) -> None:
        """What eventlet has and we have not is told with the file, the line, and what to write."""
        import eventlet

        for name, words in [("wrap_ssl", "ssl.SSLContext"), ("wsgi", "@http"), ("anything", "threading")]:
            with self.assertRaises(AttributeError) as raised:
                getattr(eventlet, name)
            self.assertRegex(str(raised.exception), rf"test_imports\.py, line \d+: eventlet\.{name} .*{words}")

    def test_too_late(self) -> None:
        """A nameko that has been imported already is told: parts of both would be in use."""
        imports.uninstall()
        for name in ("nameko", "eventlet"):
            sys.modules[name] = ModuleType(name)
            self.addCleanup(sys.modules.pop, name, None)
            with self.assertRaisesRegex(ConfigurationError, f"{name} has been imported before.*--nameko"):
                imports.install()
            del sys.modules[name]
