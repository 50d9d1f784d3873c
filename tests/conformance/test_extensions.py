"""Extensions: lines 57 and 58."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.noting import Dependency, Fires
from txservices.containers import ServiceContainer
from txservices.extensions import Entrypoint, SharedExtension

hook = Entrypoint.decorator


class Keyed(SharedExtension):
    """One for each key."""

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def sharing_key(self):
        return Keyed, self.key


class Options(Entrypoint):
    """Takes arguments, and has an extension that depends on them."""

    def __init__(self, key, times=1, **kwargs):
        super().__init__(**kwargs)
        self.times = times
        self.keyed = Keyed(key)


class Extensions(TestCase):
    """Lines 57 and 58."""

    def test_line_57_bind(self) -> None:
        """A prototype stays as it was; what is bound is a new one, with all inside it, and can't be bound again."""

        class Service:
            name = "service"
            dependency = Dependency()

            @Options.decorator("one", times=2)
            def first(self): ...

            @Options.decorator("one")
            @Fires.decorator
            def second(self): ...

            @Options.decorator("two")
            def third(self): ...

        one, two = ServiceContainer(Service, {}), ServiceContainer(Service, {})
        self.assertFalse(Service.dependency.is_bound() or Service.dependency.shared.is_bound())
        self.assertIsNone(Service.dependency.container)
        bound = one.dependencies[0]
        self.assertTrue(bound.is_bound() and bound.shared.is_bound())
        self.assertIs(bound.container, one)
        self.assertIsNot(bound, two.dependencies[0])
        self.assertEqual(str(self.assertRaises(RuntimeError, bound.bind, two)), "Cannot `bind` a bound extension.")
        options = {each.method_name: each for each in one.entrypoints if isinstance(each, Options)}
        fires = next(each for each in one.entrypoints if isinstance(each, Fires))
        self.assertEqual([options[name].times for name in ("first", "second", "third")], [2, 1, 1])
        self.assertIs(fires.shared, bound.shared)
        self.assertIsNot(bound.shared, two.dependencies[0].shared)
        self.assertIs(options["first"].keyed, options["second"].keyed)
        self.assertIsNot(options["first"].keyed, options["third"].keyed)

    def test_line_58_decorators(self) -> None:
        """Bare, with parentheses, with arguments and with keywords; the function stays what it is."""

        class Service:
            name = "service"

            @hook
            def bare(self, value):
                return value

            @hook()
            def called(self, value):
                return value

            @Options.decorator("key", 3)
            def positional(self, value):
                return value

            @hook(expected_exceptions=ValueError, sensitive_arguments="value")
            def keywords(self, value):
                return value

        container = ServiceContainer(Service, {})
        found = {each.method_name: each for each in container.entrypoints}
        self.assertEqual(sorted(found), ["bare", "called", "keywords", "positional"])
        self.assertEqual(found["positional"].times, 3)
        self.assertEqual(found["keywords"].expected_exceptions, (ValueError,))
        service = Service()
        self.assertEqual([getattr(service, name)(name) for name in found], list(found))
