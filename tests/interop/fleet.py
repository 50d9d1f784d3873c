"""The services of these tests, written once and run by both: with nameko's imports they are ``answers_n``,
``caller_n``, …, with ours ``answers_t``, ``caller_t``, …; ``twin`` is called so on both sides.

    services("nameko", "n", hang)["Answers"]

A method that uses the value of a call is in a class with ``blocking = True``, which nameko doesn't know. Imported by
both, so this imports neither at the top.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timezone
from decimal import Decimal
from importlib import import_module
from typing import Any

SIDES = ("n", "t")
# What context data of nameko's has, and of ours doesn't: deadlines are ours, and nameko passes them on.
NOT_DATA = ("call_id_stack", "call_deadline", "call_time_left")


# What methods raise and give -----------------------------------------------------------------------------------------


class Registered(Exception):
    """Both sides map it back: ``deserialize_to_instance``."""


class Unknown(Exception):
    """A stranger to its caller."""


class MethodNotFound(Exception):
    """An application's own, of the name of one of the framework's."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Odd:
    """A value that JSON can't carry."""

    def __repr__(self) -> str:
        return "<odd>"


class Nameless:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Numbers:
    """To be gone through once."""

    def __iter__(self) -> Any:
        return iter((1, 2))

    def __repr__(self) -> str:
        return "<numbers>"


class Pair:
    def __json__(self) -> list[int]:
        return [1, 2]


FAILURES: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("wrong"),
    "no arguments": lambda: ValueError(),
    "several": lambda: ValueError("a", "b"),
    "key": lambda: KeyError("missing"),
    "values": lambda: Unknown("a", 1, 1.5, None, True, {"k": Odd(), 2: [3]}, [Odd(), (1, 2)], b"by", {4}),
    "iterator": lambda: Unknown(Numbers()),
    "stranger": lambda: Unknown("ünknown"),
    "registered": lambda: Registered("known"),
    "same name": lambda: MethodNotFound("mine"),
    "mute": lambda: Mute("x"),
    "mute argument": lambda: Unknown(Mute("x")),
}
RESULTS: dict[str, Callable[[], Any]] = {
    "set": lambda: {1},
    "odd": Odd,
    "odd inside": lambda: {"a": [Odd()]},
    "nameless": Nameless,
    "iterator": Numbers,
    "pair": Pair,
}
SPECIAL: tuple[Any, ...] = (
    datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
    date(2026, 1, 2),
    time(3, 4, 5),
    Decimal("1.10"),
    uuid.UUID("c579e7b8-8fb0-4bfd-a3dd-7a658123b2dc"),
    b"bytes",
    b"\xff\xfe",
    [(1, 2), {"a": Decimal(3)}],
    {1: "one", "two": None},
    2**200,
    -1.5e300,
    float("inf"),
    "ünï \U0001f600 \ud800 \x00",
)


def outcome(call: Callable[[], Any]) -> dict[str, Any]:
    """The outcome of a call as its caller sees it."""
    try:
        return {"result": call()}
    except Exception as error:
        seen = {name: getattr(error, name) for name in ("exc_type", "value") if hasattr(error, name)}
        text = str(error).partition(" (call of ")[0]  # our errors name the call, too
        return {"error": type(error).__name__, "args": [repr(each) for each in error.args], "text": text, **seen}


def deserialize_registered(framework: str) -> None:
    import_module(f"{framework}.exceptions").deserialize_to_instance(Registered)


# The services --------------------------------------------------------------------------------------------------------


def services(
    framework: str,
    own: str,
    hang: Callable[[], Any],
    book: Callable[[int], object] = print,
    failed: Callable[[tuple[str, int]], object] = print,
) -> dict[str, type]:
    """The services of one side, by class name.

    ``hang`` gives what never ends, ``book`` notes an event's number, ``failed`` an attempt that failed.
    """
    module = lambda name: import_module(f"{framework}.{name}")  # noqa: E731
    entities = import_module("kombu") if framework == "nameko" else module("messaging")
    rpc, RpcProxy = module("rpc").rpc, module("rpc").RpcProxy
    events = module("events")
    event_handler = events.event_handler
    deserialize_registered(framework)
    readings = entities.Exchange("readings", type="topic")
    again = {} if framework == "nameko" else {"retry": module("retry").Retry(attempts=100, delay=0.02, growth=1)}

    class Context(module("extensions").DependencyProvider):
        def get_dependency(self, worker_ctx: Any) -> Any:
            return worker_ctx

    class Answers:
        name = f"answers_{own}"

        @rpc
        def echo(self, *args, **kwargs):
            return [list(args), kwargs]

        @rpc
        def two(self, a, b=2, *, c=3):
            return [a, b, c]

        @rpc(expected_exceptions=Exception)
        def fail(self, kind):
            raise FAILURES[kind]()

        @rpc
        def give(self, kind):
            return RESULTS[kind]()

        @rpc
        def special(self, values):
            return [[repr(value) for value in values], values]

        @rpc
        def give_special(self, which):
            return SPECIAL[which]

    class Caller:
        name = f"caller_{own}"
        blocking = True
        answers_n = RpcProxy("answers_n")
        answers_t = RpcProxy("answers_t")
        transient_t = RpcProxy("answers_t", delivery_mode=1)
        nobody = RpcProxy("nobody")
        sink = RpcProxy("sink")
        sink_options = RpcProxy("sink", priority=3, expiration=20, delivery_mode=1, compression="gzip")
        sink_pickle = RpcProxy("sink", serializer="pickle")
        strict = RpcProxy("strict")
        strict_pickle = RpcProxy("strict", serializer="pickle")
        pickle_n = RpcProxy("answers_n", serializer="pickle")
        pickle_t = RpcProxy("answers_t", serializer="pickle")

        @rpc
        def call(self, service, method, args=(), kwargs=None):
            call = getattr(getattr(self, service), method)
            return outcome(lambda: call(*args, **(kwargs or {})))

        @rpc
        def call_async(self, service, values):
            """Each result twice, the last call's first, and the outcome of one that fails."""
            proxy = getattr(self, service)
            replies = [proxy.echo.call_async(value) for value in values]
            failed = proxy.fail.call_async("plain")
            got = [[reply.result(), reply.result()] for reply in reversed(replies)]
            return [got, outcome(failed.result)]

        @rpc(expected_exceptions=Exception)
        def relay(self, service, kind):
            return getattr(self, service).fail(kind)

        @rpc
        def special(self, service):
            """The special values as they come back to us, and as they were over there."""
            there, values = getattr(self, service).special(SPECIAL)
            return [there, [repr(value) for value in values]]

        @rpc
        def send_special(self, service, which):
            """How one of the special values looks over there."""
            return outcome(lambda: getattr(self, service).special([SPECIAL[which]])[0][0])

        @rpc
        def take_special(self, service, which):
            """How one of the special values looks here, when it comes from there."""
            return outcome(lambda: repr(getattr(self, service).give_special(which)))

        @rpc
        def unwritable(self, service):
            """A call whose arguments can't be written, and one after it."""
            proxy = getattr(self, service)
            return [outcome(lambda: proxy.echo(Odd()))["error"], proxy.echo("after")]

    class Teller:
        name = f"teller_{own}"
        dispatch = events.EventDispatcher()
        loud = events.EventDispatcher(priority=2, expiration=20, compression="gzip")
        publish_reading = module("messaging").Publisher(exchange=readings, headers={"init": 1, "both": "init"})
        publish_anywhere = module("messaging").Publisher()

        @rpc
        def tell(self, event_type, data):
            return self.dispatch(event_type, data)

        @rpc
        def tell_loudly(self, event_type, data):
            return self.loud(event_type, data)

        @rpc
        def tell_special(self, event_type, *which):
            return self.dispatch(event_type, [SPECIAL[each] for each in which] if which else SPECIAL)

        @rpc
        def publish(self, value, options):
            return self.publish_reading(value, **options)

        @rpc
        def publish_to_queue(self, value, options):
            return self.publish_anywhere(value, **options)

    class Hops:
        name = f"hops_{own}"
        blocking = True
        context = Context()
        language = module("contextdata").Language()
        user_id = module("contextdata").UserId()
        hops_n = RpcProxy("hops_n")
        hops_t = RpcProxy("hops_t")
        dispatch = events.EventDispatcher()

        @rpc
        def hop(self, *route):
            """The context that is seen here, and at each further service of the route."""
            context = self.context
            seen = {
                "stack": context.call_id_stack,
                "call_id": context.call_id,
                "origin": context.origin_call_id,
                "parent": context.immediate_parent_call_id,
                "providers": [self.language, self.user_id],
                "data": {key: value for key, value in context.data.items() if key not in NOT_DATA},
                "left": context.time_left() if hasattr(context, "time_left") else context.data.get("call_time_left"),
            }
            if not route:
                self.dispatch("arrived", None)
                return [seen]
            return [seen, *getattr(self, f"hops_{route[0]}").hop(*route[1:])]

    class Listener:
        name = f"listener_{own}"
        context = Context()
        witness = RpcProxy("witness")

        def tell(self, what, data):
            return self.witness.tell(self.name, what, data, self.context.call_id_stack)

        @event_handler("teller_n", "told")
        @event_handler("teller_t", "told")
        def pool(self, data):
            return self.tell("pool", data)

        @event_handler("teller_n", "told")
        @event_handler("teller_t", "told")
        def second(self, data):
            return self.tell("second", data)

        @event_handler("teller_n", "told", handler_type=events.SINGLETON)
        @event_handler("teller_t", "told", handler_type=events.SINGLETON)
        def one(self, data):
            return self.tell("one", data)

        @event_handler("teller_n", "told", handler_type=events.BROADCAST, reliable_delivery=False)
        @event_handler("teller_t", "told", handler_type=events.BROADCAST, reliable_delivery=False)
        def all(self, data):
            return self.tell("all", data)

        @event_handler("teller_n", "*.wild", reliable_delivery=False)
        @event_handler("teller_t", "*.wild", reliable_delivery=False)
        def wild(self, data):
            return self.tell("wild", data)

        @event_handler("teller_n", "special")
        @event_handler("teller_t", "special")
        def special(self, data):
            return self.tell("special", [repr(each) for each in data])

        @event_handler("hops_n", "arrived")
        @event_handler("hops_t", "arrived")
        def arrived(self, data):
            return self.tell("arrived", {key: value for key, value in self.context.data.items() if key not in NOT_DATA})

    class Reader:
        name = f"reader_{own}"
        context = Context()
        witness = RpcProxy("witness")

        @module("messaging").consume(entities.Queue(f"readings-{own}", exchange=readings, routing_key=f"{own}.#"))
        def read(self, body):
            data = {
                key: value for key, value in self.context.data.items() if key in ("init", "both", "call", "language")
            }
            return self.witness.tell(self.name, "read", [repr(body), data], self.context.call_id_stack)

    class Books:
        name = f"books_{own}"

        @event_handler("teller_n", "booked")
        @event_handler("teller_t", "booked")
        def booked(self, number):
            book(number)

    class Twin:
        name = "twin"
        witness = RpcProxy("witness")

        @rpc
        def who(self, number):
            return [own, number]

        @rpc
        def until_killed(self, victim):
            """Ends in any twin but one of the victim's side."""
            if own != victim:
                return own
            self.witness.tell("twin", "begun", own, [])
            return hang()

        @event_handler("teller_n", "shared")
        @event_handler("teller_t", "shared")
        def shared(self, number):
            return self.witness.tell(own, "shared", number, [])

        @event_handler("teller_n", "picky", requeue_on_error=True)
        @event_handler("teller_t", "picky", requeue_on_error=True)
        def picky(self, wanted):
            if wanted != own:
                raise Unknown("not for me")
            return self.witness.tell(own, "picky", wanted, [])

        @event_handler("teller_n", "everyone", handler_type=events.BROADCAST, reliable_delivery=False)
        @event_handler("teller_t", "everyone", handler_type=events.BROADCAST, reliable_delivery=False)
        def everyone(self, number):
            return self.witness.tell(own, "everyone", number, [])

    class Flaky:
        """Ours fails at each attempt, and has the message come again, to either side."""

        name = "flaky"
        witness = RpcProxy("witness")

        def attempt(self, what, number):
            if framework == "txservices":
                failed((what, number))
                raise Unknown("not here")
            return number

        @rpc(**again)
        def call(self, number):
            return [own, self.attempt("call", number)]

        @event_handler("teller_n", "flaky", **again)
        @event_handler("teller_t", "flaky", **again)
        def hear(self, number):
            return self.witness.tell(own, "flaky", self.attempt("hear", number), [])

    found = (Answers, Caller, Teller, Hops, Listener, Reader, Books, Twin, Flaky)
    return {each.__name__: each for each in found}
