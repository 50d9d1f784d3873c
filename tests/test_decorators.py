"""Decorators of entrypoints: what they note on a method, and what they say where they can't."""

from __future__ import annotations

import re
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from txservices.constants import ENTRYPOINTS_ATTRIBUTE
from txservices.events import event_handler
from txservices.exceptions import ConfigurationError
from txservices.extensions import Entrypoint, register_entrypoint
from txservices.timer import timer
from txservices.web.handlers import http


class Hook(Entrypoint):
    """With an option of its own."""

    def __init__(self, other: int = 0) -> None:
        self.other = other


hook = Hook.decorator


class Decorating(SynchronousTestCase):
    """Entrypoints declared on functions."""

    def test_function_stays(self) -> None:
        """The decorated method is the function that it was, and each decorator above it notes an entrypoint."""

        def method(self, x): ...

        self.assertIs(hook(other=1)(hook(method)), method)
        first, second = getattr(method, ENTRYPOINTS_ATTRIBUTE)
        self.assertEqual((first.other, second.other), (0, 1))

    def test_by_itself(self) -> None:
        """A decorator of one's own notes an entrypoint by ``register_entrypoint``."""

        def method(self): ...

        entrypoint = Hook()
        self.assertIs(register_entrypoint(method, entrypoint), method)
        self.assertEqual(getattr(method, ENTRYPOINTS_ATTRIBUTE), [entrypoint])

    def test_declared_on_no_function(self) -> None:
        """Above a staticmethod, a classmethod or a property it says so, and where it belongs."""
        for wrap, decorate in product((staticmethod, classmethod, property), (hook, hook())):
            error = self.assertRaises(ConfigurationError, decorate, wrap(lambda self: None))
            kind = rf"^the decorator above \S+ is on a {wrap.__name__}, which is no method: "
            self.assertRegex(str(error), kind + "put it directly above the `def` of a plain method")

    def test_without_brackets(self) -> None:
        """A decorator that needs arguments and has no brackets names its method, and what it needs."""

        def tick(self): ...

        for decorator, needed in (
            (timer, "interval"),
            (event_handler, "source_service, event_type"),
            (http, "method, url"),
        ):
            error = self.assertRaises(ConfigurationError, decorator, tick)
            pattern = rf"the decorator above \S+tick needs {needed}: write it with its arguments in brackets"
            self.assertTrue(re.fullmatch(pattern, str(error)), str(error))

    def test_wrong_options(self) -> None:
        """One that is given what it does not take names its method, and no line of ours."""

        def sell(self): ...

        decorate = hook(nonsense=1)  # type: ignore[call-overload]  # a type checker sees it, too
        error = self.assertRaises(ConfigurationError, decorate, sell)
        self.assertRegex(str(error), r"^the decorator above \S+sell got an unexpected keyword argument 'nonsense'")
