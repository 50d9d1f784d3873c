"""Extensions: prototypes and what a container makes of them, decorators, signatures, providers in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer
from txservices.exceptions import IncorrectSignature
from txservices.extensions import (
    DependencyProvider,
    Entrypoint,
    Extension,
    ProviderCollector,
    SharedExtension,
    is_dependency,
    is_entrypoint,
    is_extension,
    iter_extensions,
)


class Shared(SharedExtension):
    """One for all."""


class Keyed(SharedExtension):
    """One for each key."""

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def sharing_key(self) -> Any:
        return Keyed, self.key


class Inner(Extension):
    """Has an extension inside."""

    shared = Shared()


class Hook(Entrypoint):
    """Fires when a test says so."""

    shared = Shared()


class Configured(Entrypoint):
    """Takes an argument of its own and does without super().__init__()."""

    def __init__(self, url: str, times: int = 1) -> None:
        self.url = url
        self.times = times
        self.keyed = Keyed(url)


class Provider(DependencyProvider):
    """A dependency with an extension inside an extension."""

    inner = Inner()


hook = Hook.decorator
configured = Configured.decorator


class Base:
    name = "service"

    provider = Provider()
    other = Provider()

    @hook
    def plain(self, a: Any, b: Any = None) -> Any:
        return a

    @hook()
    @configured("one", times=2)
    def twice(self) -> None: ...

    @hook
    def lost(self) -> None: ...


class Service(Base):
    @configured("one")
    def another(self) -> None: ...

    @configured("two")
    def third(self) -> None: ...

    def lost(self) -> None: ...


class Binding(TestCase):
    """From a prototype to a container's own."""

    def setUp(self) -> None:
        self.container = ServiceContainer(Service, {})

    def entrypoint(self, method: str, cls: type[Entrypoint]) -> Any:
        return next(e for e in self.container.entrypoints if e.method_name == method and isinstance(e, cls))

    def test_found(self) -> None:
        """Inherited entrypoints and dependencies count; an override without decorator is none; several stack."""
        found = sorted((e.method_name, type(e).__name__) for e in self.container.entrypoints)
        self.assertEqual(
            found,
            [
                ("another", "Configured"),
                ("plain", "Hook"),
                ("third", "Configured"),
                ("twice", "Configured"),
                ("twice", "Hook"),
            ],
        )
        self.assertEqual([d.attr_name for d in self.container.dependencies], ["provider", "other"])

    def test_prototype_stays(self) -> None:
        """The prototype is not touched, and each container has its own."""
        bound = self.container.dependencies[0]
        self.assertIsNot(bound, Base.provider)
        self.assertFalse(Base.provider.is_bound())
        self.assertFalse(Provider.inner.is_bound())
        self.assertTrue(bound.is_bound())
        self.assertIs(bound.container, self.container)
        again = ServiceContainer(Service, {}).dependencies[0]
        self.assertIsNot(again, bound)

    def test_bound_once(self) -> None:
        """A bound extension can't be bound again."""
        bound = self.container.dependencies[0]
        self.assertRaises(RuntimeError, bound.bind, self.container)

    def test_arguments(self) -> None:
        """The bound one was made with the arguments of the prototype."""
        twice = self.entrypoint("twice", Configured)
        self.assertEqual((twice.url, twice.times), ("one", 2))
        self.assertEqual((twice.expected_exceptions, twice.sensitive_arguments, twice.blocking), ((), (), False))

    def test_inner(self) -> None:
        """Extensions inside are bound as well, however deep; two dependencies have one each."""
        first, second = self.container.dependencies
        self.assertTrue(first.inner.is_bound())
        self.assertIsNot(first.inner, second.inner)
        self.assertEqual(list(iter_extensions(first)), [first.inner.shared, first.inner])

    def test_shared(self) -> None:
        """A shared one exists once in a container, for each key."""
        shared = self.container.shared_extensions[Shared]
        first, second = self.container.dependencies
        self.assertIs(first.inner.shared, shared)
        self.assertIs(second.inner.shared, shared)
        self.assertIs(self.entrypoint("plain", Hook).shared, shared)
        one, two = self.entrypoint("twice", Configured), self.entrypoint("third", Configured)
        self.assertIs(self.entrypoint("another", Configured).keyed, one.keyed)
        self.assertIsNot(one.keyed, two.keyed)
        self.assertEqual(self.container.subextensions.count(shared), 1)
        self.assertIsNot(ServiceContainer(Service, {}).shared_extensions[Shared], shared)

    def test_kinds(self) -> None:
        """The three questions about what something is."""
        for thing, answers in [
            (Hook(), (True, False, True)),
            (Provider(), (True, True, False)),
            (Shared(), (True, False, False)),
            (Shared, (False, False, False)),
        ]:
            self.assertEqual((is_extension(thing), is_dependency(thing), is_entrypoint(thing)), answers)

    def test_repr(self) -> None:
        """A bound one says whose it is."""
        self.assertIn("<Provider [service.", repr(self.container.dependencies[0]))
        self.assertIn("<Provider [unbound] at", repr(Base.provider))


class Decorating(TestCase):
    """Entrypoints declared on functions."""

    def test_sensitive_arguments(self) -> None:
        """They may still be called by the name of old."""
        self.assertEqual(Hook(sensitive_arguments="a").sensitive_arguments, "a")
        self.assertEqual(Hook(sensitive_variables=("a", "b")).sensitive_arguments, ("a", "b"))

    def test_expected_exceptions(self) -> None:
        """A class, a tuple and a list are all taken, as a tuple."""
        for given, kept in [
            (ValueError, (ValueError,)),
            ((ValueError, KeyError), (ValueError, KeyError)),
            ([ValueError], (ValueError,)),
            ((), ()),
        ]:
            self.assertEqual(Hook(expected_exceptions=given).expected_exceptions, kept)

    def test_expected_exceptions_of_others(self) -> None:
        """Those that a subclass sets by itself become a tuple when it is bound."""

        class Own(Entrypoint):
            def __init__(self) -> None:
                self.expected_exceptions = [ValueError]

        class Service:
            name = "service"

            @Own.decorator
            def method(self) -> None: ...

        self.assertEqual(ServiceContainer(Service, {}).entrypoints[0].expected_exceptions, (ValueError,))

    def test_blocking(self) -> None:
        """As the entrypoint says, else as the class says, else not."""

        class Service:
            name = "service"
            blocking = True

            @hook
            def as_class(self) -> None: ...

            @hook(blocking=False)
            def as_said(self) -> None: ...

        found = {e.method_name: e.blocking for e in ServiceContainer(Service, {}).entrypoints}
        self.assertEqual(found, {"as_class": True, "as_said": False})


def wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return wrapper


class Signatures:
    """Methods of every shape."""

    name = "signatures"

    @hook
    def none(self) -> None: ...

    @hook
    def one(self, a: int) -> None: ...

    @hook
    def default(self, a: int, b: object = object()) -> None: ...

    @hook
    def rest(self, *args: int) -> None: ...

    @hook
    def named(self, *, a: int, b: int = 1) -> None: ...

    @hook
    def keywords(self, a: int, **kwargs: int) -> None: ...

    @hook
    def positional(self, a: int, /, b: int) -> None: ...

    @hook
    @wrapped
    def hidden(self, a: int) -> None: ...


# method, args, kwargs, whether they fit
CALLS: list[tuple[str, Any, Any, bool]] = [
    ("none", (), {}, True),
    ("none", (1,), {}, False),
    ("none", (), {"a": 1}, False),
    ("none", (), {"self": 1}, False),
    ("one", (1,), {}, True),
    ("one", (), {"a": 1}, True),
    ("one", (), {}, False),
    ("one", (1,), {"a": 1}, False),
    ("one", (1, 2), {}, False),
    ("one", [1], {}, True),
    ("one", "a", {}, True),
    ("one", None, {}, False),
    ("one", 5, {}, False),
    ("one", (), None, False),
    ("one", (), [1], False),
    ("one", (), {1: 1}, False),
    ("default", (1,), {}, True),
    ("default", (1, 2), {}, True),
    ("default", (1,), {"c": 1}, False),
    ("default", (), {"b": 1}, False),
    ("rest", (), {}, True),
    ("rest", (1, 2, 3), {}, True),
    ("rest", (1,), {"a": 1}, False),
    ("named", (), {"a": 1}, True),
    ("named", (1,), {}, False),
    ("named", (), {"b": 1}, False),
    ("keywords", (1,), {"b": 1, "c": 1}, True),
    ("keywords", (), {"b": 1}, False),
    ("positional", (1, 2), {}, True),
    ("positional", (1,), {"b": 1}, True),
    ("positional", (), {"a": 1, "b": 1}, False),
    ("hidden", (), {}, True),  # what a wrapper takes, it takes
]


class CheckSignature(TestCase):
    """``check_signature``."""

    def setUp(self) -> None:
        self.entrypoints = {e.method_name: e for e in ServiceContainer(Signatures, {}).entrypoints}

    def test_table(self) -> None:
        """Arguments that fit the method pass, any others are an IncorrectSignature."""
        for method, args, kwargs, fits in CALLS:
            check = self.entrypoints[method].check_signature
            if fits:
                check(args, kwargs)
            else:
                self.assertRaises(IncorrectSignature, check, args, kwargs)

    def test_text(self) -> None:
        """The text is Python's own, about the method."""
        for method, args, kwargs, text in [
            ("one", (), {}, "one() missing 1 required positional argument: 'a'"),
            ("one", (1,), {"self": 1}, "one() got multiple values for argument 'self'"),
            ("one", (1, 2), {}, "one() takes 2 positional arguments but 3 were given"),
        ]:
            error = self.assertRaises(IncorrectSignature, self.entrypoints[method].check_signature, args, kwargs)
            self.assertEqual(str(error), text)


class Collector(ProviderCollector, SharedExtension):
    """An extension that several providers share."""


class Collecting(TestCase):
    """``ProviderCollector``."""

    def test_ends_with_the_last(self) -> None:
        """Its stop fires when the last provider has gone, and not before."""
        collector = Collector()
        collector.register_provider("one")
        collector.register_provider("two")
        stopping = collector.stop()
        collector.unregister_provider("one")
        self.assertNoResult(stopping)
        collector.unregister_provider("one")
        self.assertNoResult(stopping)
        collector.unregister_provider("two")
        self.assertIsNone(self.successResultOf(stopping))

    def test_without_providers(self) -> None:
        """With none to wait for it stops at once."""
        self.successResultOf(Collector().stop())
