"""Calls between nameko's services and ours, and all that a caller can see of how they end."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults

from tests.interop.fixtures import InteropCase
from tests.interop.fleet import FAILURES, RESULTS, SIDES, SPECIAL
from tests.interop.nameko_env import NAMEKO_3
from txservices.exceptions import IncorrectSignature, MalformedRequest, MethodNotFound, RemoteError, UnknownService
from txservices.rpc import rpc


class Calls(InteropCase):
    """It makes no difference who calls: four pairs of caller and service say the same."""

    async def setUp(self) -> None:
        super().setUp()
        await self.start_ours("Answers", "Caller")
        self.ours = await self.cluster()

    async def four(self, ask: str, *args: Any, prefix: str = "answers") -> Any:
        """The answer of ``ask`` to each side's caller about each side's service: the same, or the test fails."""
        pairs = [(caller, service) for caller in SIDES for service in SIDES]
        answers = await gatherResults(
            [getattr(self.ours[f"caller_{caller}"], ask)(f"{prefix}_{service}", *args) for caller, service in pairs]
        )
        for pair, answer in zip(pairs, answers, strict=True):
            self.assertEqual(repr(answer), repr(answers[0]), f"{pair} and {pairs[0]} differ: {ask}{args}")
        return answers[0]

    async def test_arguments_and_results(self) -> None:
        """Positional and keyword arguments get there, and results get back."""
        values = [1, 1.5, None, True, "ünï", [1, [2]], {"a": {"b": None}}]
        seen = await self.four("call", "echo", values, {"k": 1, "ü": [2]})
        self.assertEqual(seen, {"result": [values, {"k": 1, "ü": [2]}]})

    async def test_call_async(self) -> None:
        """Several calls are under way at once, and a result can be asked for twice, and late."""
        got, failed = await self.four("call_async", [1, 2, 3])
        self.assertEqual(got, [[[[n], {}], [[n], {}]] for n in (3, 2, 1)])
        self.assertEqual((failed["error"], failed["text"]), ("RemoteError", "ValueError wrong"))

    async def test_signatures(self) -> None:
        """Arguments that don't fit are refused in the same words, and those that fit are not."""
        for args, kwargs in (
            ([], {}),
            ([1, 2, 3], {}),
            ([1], {"a": 1}),
            ([1], {"d": 1}),
            ([], {"b": 1}),
        ):
            seen = await self.four("call", "two", args, kwargs)
            self.assertEqual(seen["error"], IncorrectSignature.__name__, (args, kwargs))
        for args, kwargs, result in (([1], {}, [1, 2, 3]), ([], {"a": 1, "c": 4}, [1, 2, 4]), ([1, 5], {}, [1, 5, 3])):
            self.assertEqual(await self.four("call", "two", args, kwargs), {"result": result})

    async def test_what_methods_raise(self) -> None:
        """Each error is the same ``RemoteError``, down to its text, or of the class that is registered for it."""
        for kind in FAILURES:
            seen = await self.four("call", "fail", [kind])
            expected = "Registered" if kind == "registered" else RemoteError.__name__
            self.assertEqual(seen["error"], expected, kind)

    async def test_what_methods_give(self) -> None:
        """A result that JSON can't carry is an error that shows it; ``__json__`` is asked."""
        for kind in RESULTS:
            seen = await self.four("call", "give", [kind])
            if kind == "pair":
                self.assertEqual(seen, {"result": [1, 2]})
            else:
                self.assertEqual(seen["exc_type"], "UnserializableValueError", kind)

    async def test_no_such_method(self) -> None:
        """A method that a service has not got is ``MethodNotFound``; one whose name has a dot goes nowhere."""
        seen = await self.four("call", "nothing")
        self.assertEqual((seen["error"], seen["text"]), (MethodNotFound.__name__, "nothing"))
        for caller in SIDES:
            seen = await self.ours[f"caller_{caller}"].call("answers_n", "with.dot")
            self.assertEqual((seen["error"], seen["args"]), (UnknownService.__name__, ["'answers_n'"]))

    async def test_no_such_service(self) -> None:
        """Both callers say which service is unknown, in the same words."""
        seen = [await self.ours[f"caller_{caller}"].call("nobody", "x") for caller in SIDES]
        self.assertEqual(seen[0], {"error": "UnknownService", "args": ["'nobody'"], "text": "Unknown service `nobody`"})
        self.assertEqual(seen[1], seen[0])

    async def test_errors_of_errors(self) -> None:
        """An error that goes through a service in between is told as nameko tells it."""
        for caller in SIDES:
            for service in SIDES:
                relayed = self.ours[f"caller_{caller}"].relay(f"answers_{service}", "stranger")
                error = await self.assertFailure(relayed, RemoteError)
                self.assertEqual((error.exc_type, error.value), ("RemoteError", "Unknown ünknown"))

    async def test_arguments_that_cannot_be_written(self) -> None:
        """The caller has an ``EncodeError``, nothing is sent, and the proxy goes on."""
        self.assertEqual(await self.four("unwritable"), ["EncodeError", [["after"], {}]])

    async def test_what_json_has_no_word_for(self) -> None:
        """Times, decimals, UUIDs, bytes, and the edges of numbers and text, arrive and come back as what they were."""
        there, back = await self.four("special")
        expected = [repr(value) for value in SPECIAL]
        expected[8] = "[[1, 2], {'a': Decimal('3')}]"
        expected[9] = "{'1': 'one', 'two': None}"
        self.assertEqual(there, expected)
        self.assertEqual(back, expected)

    async def test_pickles(self) -> None:
        """A service that accepts pickles answers a pickled request with a pickle."""
        seen = await self.four("call", "echo", [1, "x"], {"k": None}, prefix="pickle")
        self.assertEqual(seen, {"result": [[1, "x"], {"k": None}]})

    async def test_what_is_not_accepted(self) -> None:
        """A format that our service does not accept is answered; a nameko service leaves its caller waiting."""

        class Strict:
            name = "strict"

            @rpc
            def echo(self, value: str) -> str:
                return value

        await self.start(Strict, ACCEPT=["json"])
        for caller in SIDES:
            self.assertEqual(await self.ours[f"caller_{caller}"].call("strict", "echo", ["x"]), {"result": "x"})
            seen = await self.ours[f"caller_{caller}"].call("strict_pickle", "echo", ["x"])
            self.assertEqual(seen["error"], MalformedRequest.__name__)
            self.assertIn("application/json is", seen["text"])

    async def test_from_programs_that_are_no_services(self) -> None:
        """nameko's standalone proxies call ours and have its errors."""
        standalone = self.ours["standalone_n"]
        for service in SIDES:
            self.assertEqual(
                await standalone.call(f"answers_{service}", "two", [1], {}), [{"result": [1, 2, 3]}] * 3, service
            )
        for method, args in (("two", []), ("nothing", []), ("fail", ["registered"]), ("fail", ["values"])):
            theirs, ours = [
                await standalone.call(f"answers_{service}", method, args, {"language": "en"}) for service in SIDES
            ]
            self.assertEqual(theirs, ours)
            self.assertIn("error", ours[0])
        for seen in await standalone.call("nowhere", "x", [], {}):
            self.assertEqual((seen["error"], seen["text"]), ("UnknownService", "Unknown service `nowhere`"))


class CallsWithNameko3(Calls):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3
