"""Errors: what each says, and how it gets to a caller and back."""

from __future__ import annotations

import re

from twisted.trial.unittest import TestCase

from tests.test_safe import Thing, Unspeakable
from txservices import exceptions
from txservices.exceptions import (
    AmqpError,
    BadRequest,
    CommandError,
    ConnectionLost,
    FrameError,
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
    RemoteError,
    RpcTimeout,
    UndeliverableMessage,
    UnknownService,
    UnserializableValueError,
    deserialize,
    deserialize_to_instance,
    get_module_path,
    serialize,
)

TREE = re.compile(r"^    ( *)([A-Z]\w+(?:\([^)]*\))?(?:  [A-Z]\w+)*)(?:  |$)", re.MULTILINE)


class InOneModule(TestCase):
    """The errors as users find them."""

    errors = {
        name: thing
        for name, thing in vars(exceptions).items()
        if isinstance(thing, type) and issubclass(thing, BaseException)
    }

    def test_path(self) -> None:
        """Each bears the path by which it is imported, in whichever file it stands."""
        self.assertEqual({each.__module__ for each in self.errors.values()}, {"txservices.exceptions"})

    def test_tree(self) -> None:
        """The tree in the docstring has each error, below its base class."""
        drawn: list[tuple[str, str]] = []
        above: dict[int, str] = {-1: ""}
        for indent, names in TREE.findall(exceptions.__doc__ or ""):
            for name in re.sub(r"\(.*?\)", "", names).split():
                drawn.append((name, above[len(indent) // 2 - 1]))
                above[len(indent) // 2] = name
        bases = [(name, error.__bases__[0].__name__) for name, error in self.errors.items()]
        self.assertEqual(sorted(drawn), sorted((name, base if base in self.errors else "") for name, base in bases))


class OnTheWire(TestCase):
    """``serialize`` and ``deserialize``."""

    def test_fields(self) -> None:
        """An error is its class's name and path, its arguments and its text."""
        self.assertEqual(
            serialize(ValueError("a", 1, {"k": Thing()})),
            {
                "exc_type": "ValueError",
                "exc_path": "builtins.ValueError",
                "exc_args": ["a", "1", {"k": "<Thing>"}],
                "value": "('a', 1, {'k': <Thing>})",
            },
        )

    def test_nameko_paths(self) -> None:
        """An error that nameko has too is called on the wire as nameko calls it."""
        for error in (MethodNotFound, IncorrectSignature, BadRequest, RemoteError, UnknownService, CommandError):
            self.assertEqual(get_module_path(error), f"nameko.exceptions.{error.__name__}")
        self.assertEqual(get_module_path(FrameError), "txservices.exceptions.FrameError")

    def test_registered_return_as_themselves(self) -> None:
        """The three that callers tell apart come back as what they were."""
        for error in (MethodNotFound("m"), IncorrectSignature("takes 1"), MalformedRequest("no args")):
            back = deserialize(serialize(error))
            self.assertIs(type(back), type(error))
            self.assertEqual(back.args, error.args)

    def test_others_return_as_remote_errors(self) -> None:
        """Any other error comes back as its type's name and its text."""
        back = deserialize(serialize(ValueError("reason")))
        assert isinstance(back, RemoteError)
        self.assertEqual((back.exc_type, back.value, str(back)), ("ValueError", "reason", "ValueError reason"))

    def test_name_alone_is_not_enough(self) -> None:
        """An application's own MethodNotFound is not ours: the path decides."""
        data = {"exc_type": "MethodNotFound", "exc_path": "app.MethodNotFound", "exc_args": ["m"], "value": "m"}
        self.assertIsInstance(deserialize(data), RemoteError)

    def test_deserialize_to_instance(self) -> None:
        """A class registered here comes back as itself."""

        @deserialize_to_instance
        class Refused(Exception):
            pass

        self.addCleanup(exceptions.registry.pop, get_module_path(Refused))
        back = deserialize(serialize(Refused("why")))
        self.assertIs(type(back), Refused)
        self.assertEqual(back.args, ("why",))

    def test_class_with_other_arguments(self) -> None:
        """One whose class does not take what came is a RemoteError, not a surprise for the caller."""

        @deserialize_to_instance
        class Picky(Exception):
            def __init__(self, one: str, two: str) -> None:
                super().__init__(one)

        self.addCleanup(exceptions.registry.pop, get_module_path(Picky))
        self.assertIsInstance(deserialize(serialize(Picky("one", "two"))), RemoteError)

    def test_missing_fields(self) -> None:
        """Absent keys are None, further ones are ignored."""
        back = deserialize({"exc_type": "Error", "traceback": "old"})
        assert isinstance(back, RemoteError)
        self.assertEqual((back.exc_type, back.value), ("Error", None))

    def test_garbage(self) -> None:
        """Whatever stands where an error should, the result is an error."""
        for data in (
            "text",
            1,
            ["a"],
            {"exc_path": ["x"]},
            {"exc_path": "nameko.exceptions.MethodNotFound", "exc_args": 1},
        ):
            self.assertIsInstance(deserialize(data), RemoteError)

    def test_nested(self) -> None:
        """A remote error raised once more keeps the whole story in its text."""
        first = deserialize(serialize(ValueError("reason")))
        second = deserialize(serialize(first))
        self.assertEqual(str(second), "RemoteError ValueError reason")


class Texts(TestCase):
    """The texts and attributes of errors."""

    def test_amqp_error(self) -> None:
        """The broker's words, its code, and what it was about."""
        error = AmqpError(403, "ACCESS_REFUSED - no", "queue.declare")
        self.assertEqual(str(error), "ACCESS_REFUSED - no (code 403, about queue.declare)")
        self.assertEqual((error.code, error.text, error.method), (403, "ACCESS_REFUSED - no", "queue.declare"))
        self.assertEqual(str(ConnectionLost("gone")), "gone")

    def test_publish_errors(self) -> None:
        """Each names the message and what to look at."""
        error = UndeliverableMessage("x", "key", 312, "NO_ROUTE")
        self.assertEqual((error.exchange, error.routing_key, error.code, error.text), ("x", "key", 312, "NO_ROUTE"))
        for each in (error, PublishNacked("x", "key"), PublishTimeout("x", "key")):
            self.assertIn("'x' with routing key 'key'", str(each))
        self.assertIn("3 messages (10 bytes)", str(PublishBufferFull(3, 10)))

    def test_rpc_errors(self) -> None:
        """Texts and arguments that nameko's callers know."""
        self.assertEqual(str(UnknownService("maths")), "Unknown service `maths`")
        self.assertEqual(UnknownService("maths").args, ("maths",))
        self.assertEqual((str(RpcTimeout(2)), RpcTimeout(2).args), ("no reply within 2 s", (2,)))
        self.assertEqual((str(RpcTimeout()), RpcTimeout().args), ("no reply in time", ()))

    def test_unserializable(self) -> None:
        """The value is told by its repr, if it has one, and is not carried along."""
        error = UnserializableValueError({1})
        self.assertEqual((str(error), error.args, error.repr_value), ("Unserializable value: `{1}`", (), "{1}"))
        self.assertEqual(UnserializableValueError(Unspeakable()).repr_value, "[__repr__ failed]")
