"""Mistakes in a service class, each told in one line before anything starts."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from txservices.containers import ServiceContainer, get_service_name
from txservices.dependency_providers import Config
from txservices.events import event_handler
from txservices.exceptions import ConfigurationError
from txservices.messaging import Queue, consume
from txservices.rpc import rpc
from txservices.timer import timer
from txservices.web.handlers import http

NAMES = (
    ("", "is empty"),
    ("  ", "is empty"),
    ("#", "has * or #"),
    ("shop.*", "has * or #"),
    ("s" * 201, "has 201 bytes: give it a name of up to 200"),
    ("ø" * 101, "has 202 bytes"),
    (None, "must define a `name`"),
    (5, "must be a string"),
)


class Names(SynchronousTestCase):
    """A service's name."""

    def test_refused(self) -> None:
        """One that is empty, has a pattern in it, is too long or is no text, with the class that has it."""
        for name, words in NAMES:
            error = self.assertRaises(ConfigurationError, get_service_name, type("Shop", (), {"name": name}))
            self.assertIn(words, str(error))
            self.assertIn(".Shop", str(error))

    def test_taken(self) -> None:
        """Any other, also with dots, blanks and letters of any language."""
        for name in ("shop", "shop.stock", "a b", "büro", "s" * 200):
            self.assertEqual(get_service_name(type("Shop", (), {"name": name})), name)


class Classes(SynchronousTestCase):
    """What workers need of a class."""

    def mistake(self, service: type[Any]) -> str:
        error = self.assertRaises(ConfigurationError, ServiceContainer, service, {})
        self.assertEqual(len(str(error).splitlines()), 1)
        return str(error)

    def test_init(self) -> None:
        """An ``__init__`` that needs arguments is told with their names; one with defaults is fine."""

        class Needs:
            name = "shop"

            def __init__(self, db, cache=None, *, url, **more): ...

        class NeedsNothing:
            name = "shop"

            def __init__(self, db=None, *args, url="", **more): ...

        self.assertRegex(self.mistake(Needs), r"\.Needs can't be made without arguments, its __init__ needs db, url: ")
        ServiceContainer(NeedsNothing, {})
        ServiceContainer(type("OfC", (dict,), {"name": "shop"}), {})

    def test_wrapped(self) -> None:
        """An entrypoint inside staticmethod, classmethod or property would never be called."""
        for wrap in (staticmethod, classmethod, property):

            def sell(self): ...

            service = type("Shop", (), {"name": "shop", "sell": wrap(rpc(sell))})
            self.assertIn(f"Shop.sell is a {wrap.__name__}: an entrypoint is a plain method", self.mistake(service))

    def test_class_for_a_dependency(self) -> None:
        """A provider's class in place of an instance is told; one that is defined inside the service is fine."""

        class Shop:
            name = "shop"
            config = Config

        self.assertIn("Shop.config is the class Config: write Config()", self.mistake(Shop))

        class Nested:
            name = "nested"

            class Own(Config):
                pass

            config = Own()

        ServiceContainer(Nested, {})

    def test_self(self) -> None:
        """A method without self is told; one that takes any arguments is fine."""

        def none(): ...

        def keywords(*, one=1, **more): ...

        def any_arguments(*args): ...

        def only(self, /): ...

        for method in (none, keywords):
            service = type("Shop", (), {"name": "shop", method.__name__: rpc(method)})
            self.assertIn(f"write `def {method.__name__}(self)`", self.mistake(service))
        ServiceContainer(type("Shop", (), {"name": "shop", "any": rpc(any_arguments), "only": rpc(only)}), {})

    def test_generators(self) -> None:
        """A generator, which nothing runs, is told; inlineCallbacks is fine, and so are pieces that are taken."""

        def pieces(self):
            yield

        async def async_pieces(self):
            yield

        decorators: list[Any] = [rpc, event_handler("a", "b"), consume(Queue("q")), timer(interval=1)]
        for decorator in decorators:
            for method in (pieces, async_pieces):
                service = type("Shop", (), {"name": "shop", "sell": decorator(FunctionType(method.__code__, {}))})
                self.assertIn("Shop.sell has a `yield` in it, so nothing of it would ever run", self.mistake(service))
            ServiceContainer(type("Shop", (), {"name": "shop", "sell": decorator(inlineCallbacks(pieces))}), {})
        ServiceContainer(
            type("Shop", (), {"name": "shop", "sell": http("GET", "/")(pieces), "other": async_pieces}), {}
        )

    def test_ordinary(self) -> None:
        """Dependencies, static methods without an entrypoint and inherited methods are no mistakes."""

        class Base:
            @rpc
            def sell(self): ...

            @staticmethod
            def helper(): ...

        class Shop(Base):
            name = "shop"
            config = Config()

        ServiceContainer(Shop, {})
