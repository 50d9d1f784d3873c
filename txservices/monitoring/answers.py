"""What the processes of a fleet are asked, and what they answer: messages of JSON, each read and checked here. Pure.

    asker    --Ask-->  exchange ``txservices-fleet``, routing key ``ask.VERSION``  -->  each process
    process  --Answer or Tailed-->  the queue in the ask's ``reply_to``            -->  asker

An answer has the ``correlation_id`` of its ask. docs/fleet.md describes the same for other programs. Whoever reads a
message ignores keys that are not known here, so keys can be added in the same version.

All times are seconds. Those called ``since``, ``now`` and ``at`` are since 1970; their clock is the process's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin

from typing_extensions import NotRequired, TypedDict, get_type_hints, is_typeddict

__all__ = [
    "EXCHANGE",
    "VERSION",
    "WANTS",
    "Answer",
    "Ask",
    "Counts",
    "Edge",
    "Failed",
    "Happened",
    "Method",
    "MethodCounts",
    "Process",
    "Service",
    "Tail",
    "Tailed",
    "is_asked",
    "key_of",
    "read_answer",
    "read_ask",
    "read_tailed",
    "written",
]

EXCHANGE = "txservices-fleet"
VERSION = 1
WANTS = ("services", "counts", "failures", "tail")

ASK_MAX = 65_536  # bytes of an ask
ANSWER_MAX = 524_288  # bytes of an answer, 512 KiB
SPREAD_MAX = 10.0  # seconds by which an answer may be delayed
LEASE_MAX = 60.0  # seconds that one ask may have what happens told
NUMBER_MAX = 1_000_000_000_000_000_000  # a whole number that is read where any number may stand


# The ask --------------------------------------------------------------------------------------------------------------


class Tail(TypedDict):
    """What is to be told as it happens.

    Attributes:
        service: only of this service; empty for all.
        method: only of this method, or this type of event; empty for all.
        seconds: how long, at most ``LEASE_MAX``. Another ask with the same ``correlation_id`` makes it longer.
        rate: how many a second each process tells at most. The others are counted.
    """

    service: str
    method: str
    seconds: float
    rate: float


class Ask(TypedDict):
    """A question to all processes, or to some. What a process is, ``Answer.process``, is told in any case.

    Attributes:
        want: what else is wanted, of ``WANTS``.
        spread: each answer is delayed by a random part of so many seconds, at most ``SPREAD_MAX``.
        services: only processes answer that have one of these services; of failures they tell theirs alone.
        processes: only processes answer that have one of these ids.
        failures: so many of the latest failures are wanted, 100 if it isn't given.
        tail: for the want ``tail``.
    """

    version: int
    want: list[str]
    spread: NotRequired[float]
    services: NotRequired[list[str]]
    processes: NotRequired[list[str]]
    failures: NotRequired[int]
    tail: NotRequired[Tail]


# The answer -----------------------------------------------------------------------------------------------------------


class Process(TypedDict):
    """Who answers.

    Attributes:
        id: of this run of the process; no other has it.
        host: the name of its machine.
        since: when it began.
        now: the time by its clock.
        txservices: the version of this package.
        services: the names of its services.
        failed: how many workers have failed since it began: the ``number`` of the latest in ``Answer.failures``.
    """

    id: str
    host: str
    pid: int
    since: float
    now: float
    txservices: str
    python: str
    services: list[str]
    failed: int


class Method(TypedDict):
    """An entrypoint of a service.

    Attributes:
        method: its name in the class.
        entrypoint: its kind, as ``Rpc``, ``EventHandler``, ``HttpRequestHandler``, ``Timer``: the name of its class.
        on: what calls it: ``shop.sold`` for an event, ``GET /orders`` for HTTP, the queue of a consumer, the seconds of
            a timer; empty for RPC.
        signature: as Python writes it, without self: ``(item, count=1)``.
        doc: its docstring.
        queue: the one that its messages wait in, while it is there; empty if there is no queue for others to see, as
            for HTTP and for broadcasts. Processes of older versions don't tell it.
        source: of an event handler: the service whose events it hears. Likewise.
        running: how many of its workers run. Likewise.
        waiting: how many wait for their turn. Likewise.
        max_workers: how many may run, if it has a limit of its own.
    """

    method: str
    entrypoint: str
    on: str
    queue: NotRequired[str]
    source: NotRequired[str]
    running: NotRequired[int]
    waiting: NotRequired[int]
    max_workers: NotRequired[int]
    signature: str
    doc: str


def key_of(method: Method) -> tuple[str, str, str]:
    """What tells a method of a service apart from its others."""
    return method["method"], method["entrypoint"], method["on"]


class Service(TypedDict):
    """A service in a process.

    Attributes:
        version: ``version`` of its class or ``__version__`` of its module, where one is a text; empty otherwise.
        state: ``starting``, ``running``, ``stopping``, ``killed`` or ``ended``.
        not_ready: why it can't do its work now, a line for each reason, as /readyz says it; empty if it can. Processes
            of older versions don't tell it.
        running: how many workers run now, of ``max_workers``.
        waiting: how many wait for their turn.
        events: the types of the events that it has told since its process began; of others nothing is known.
        targets: the services that it has a proxy of.
    """

    service: str
    version: str
    doc: str
    state: str
    not_ready: NotRequired[str]
    max_workers: int
    running: int
    waiting: int
    methods: list[Method]
    events: list[str]
    targets: list[str]


class Counts(TypedDict):
    """How often something was done, and how long it took.

    Attributes:
        count: how often since counting began, errors included.
        errors: how many of them failed, by an error or by a timeout. Those that were expected, or cancelled, are not
            among them.
        rate: how many a second, in the latest ``Answer.window`` seconds.
        error_rate: how many of them failed, a second, likewise.
        p50: half of those took no longer than so many seconds, within 7 %. None if there were none.
        p99: 99 of 100 likewise.
        times: of those how many took how long, by the number of a range of times: see ``counters.time_of``. With them
            ``counters.merged`` adds up the counts of several processes.
    """

    count: int
    errors: int
    rate: float
    error_rate: float
    p50: float | None
    p99: float | None
    times: NotRequired[dict[str, int]]


class MethodCounts(Counts):
    """Of the workers of one method."""

    service: str
    method: str
    entrypoint: str


class Edge(Counts):
    """Of the calls from a service to a method of another, ``target``."""

    service: str
    target: str
    method: str


class Failed(TypedDict):
    """A worker that failed, by an error that its entrypoint did not expect, or by a timeout.

    Attributes:
        number: 1 for the first of its process, and so on.
        at: when it ended.
        outcome: ``error`` or ``timeout``.
        seconds: how long it ran. If nothing counted then, only since it first waited for something: 0 if it never did.
        error: the name of the error's class.
        text: the error's own text.
        arguments: those of the method, as text by their names. Sensitive ones are hidden.
        call_id_stack: the ids of the calls that led to it, and its own at the end.
    """

    number: int
    at: float
    service: str
    method: str
    entrypoint: str
    outcome: str
    seconds: float
    error: str
    text: str
    traceback: str
    arguments: dict[str, str]
    call_id_stack: list[str]


class Answer(TypedDict):
    """What a process says of itself.

    Attributes:
        services: for the want ``services``.
        counting: for the want ``counts``: since how many seconds it counts. It begins when it is first asked, and ends
            some minutes after it was last asked. 0 says that there is nothing yet: ask again in a second.
        window: for ``counts``: over how many seconds a rate is taken, ``counting`` if that is less than usual.
        methods: for ``counts``: the methods that were called.
        edges: for ``counts``: the methods that its services called.
        failures: for ``failures``: the latest, newest first.
        left_out: of which of these a part is left out, because the answer would be too long.
    """

    version: int
    process: Process
    services: NotRequired[list[Service]]
    counting: NotRequired[float]
    window: NotRequired[float]
    methods: NotRequired[list[MethodCounts]]
    edges: NotRequired[list[Edge]]
    failures: NotRequired[list[Failed]]
    left_out: NotRequired[list[str]]


class Happened(TypedDict):
    """A worker or a call that ended, or an event that was told.

    Attributes:
        kind: ``worker``, ``call`` or ``event``.
        service: whose worker, call or event.
        name: of the worker's method, the type of the event, or ``service.method`` that was called.
        outcome: ``ok``, ``error``, ``expected``, ``timeout`` or ``cancelled``.
        seconds: how long it took.
        call_id: of the worker; empty for others.
        error: its class and its text, cut; empty without one.
    """

    at: float
    kind: str
    service: str
    name: str
    outcome: str
    seconds: float
    call_id: str
    error: str


class Tailed(TypedDict):
    """What has happened in a process since it last told it.

    Attributes:
        dropped: how many more happened than it may tell.
    """

    version: int
    process: Process
    happened: list[Happened]
    dropped: int


def is_asked(ask: Ask, process: Process) -> bool:
    """Whether a process is to answer an ask."""
    services, processes = ask.get("services"), ask.get("processes")
    if services is not None and not set(services) & set(process["services"]):
        return False
    return processes is None or process["id"] in processes


# Both ways ------------------------------------------------------------------------------------------------------------


def written(message: Mapping[str, Any]) -> bytes:
    """A message as it travels."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode()


def read_ask(body: bytes) -> Ask:
    """Read an ask. ``ValueError`` says what is wrong with it."""
    return cast(Ask, read(body, Ask, ASK_MAX))


def read_answer(body: bytes) -> Answer:
    """Read an answer. ``ValueError`` says what is wrong with it."""
    return cast(Answer, read(body, Answer, ANSWER_MAX))


def read_tailed(body: bytes) -> Tailed:
    """Read what has happened. ``ValueError`` says what is wrong with it."""
    return cast(Tailed, read(body, Tailed, ANSWER_MAX))


def read(body: bytes, kind: type[Any], most: int) -> Any:
    if len(body) > most:
        raise ValueError(f"it has {len(body):,} bytes, and may have {most:,}")
    try:
        value = json.loads(body, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if isinstance(value, dict) and value.get("version") != VERSION:
        raise ValueError(f"it is of version {str(value.get('version'))[:20]}, and here is version {VERSION}")
    return checked(value, kind, "it")


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def checked(value: Any, kind: Any, where: str) -> Any:
    """The value, without keys that its type does not have. ``ValueError`` if it is not of that type."""
    if is_typeddict(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is no object")
        kept = {}
        for key, inner in HINTS[kind].items():
            optional = get_origin(inner) is NotRequired
            if key in value:
                named = key if where == "it" else f"{where}.{key}"
                kept[key] = checked(value[key], get_args(inner)[0] if optional else inner, named)
            elif not optional:
                raise ValueError(f"{where} has no {key}")
        return kept
    origin, inside = get_origin(kind), get_args(kind)
    if origin is list and isinstance(value, list):
        return [checked(each, inside[0], where) for each in value]
    if origin is dict and isinstance(value, dict):
        return {key: checked(each, inside[1], where) for key, each in value.items()}
    if origin in (Union, UnionType) and value is None and NoneType in inside:
        return None
    plain = inside[0] if origin in (Union, UnionType) else kind
    if plain is float and type(value) is int:
        value = float(value) if abs(value) < NUMBER_MAX else None
    if type(value) is not plain or (plain is float and not isfinite(value)):
        raise ValueError(f"{where} is no {NAMES[origin if origin in NAMES else plain]}")
    return value


NAMES = {str: "text", int: "whole number", float: "number", list: "list", dict: "object"}
KINDS: tuple[Any, ...] = (Ask, Tail, Answer, Process, Service, Method, MethodCounts, Edge, Failed, Tailed, Happened)
HINTS: dict[Any, dict[str, Any]] = {kind: get_type_hints(kind, include_extras=True) for kind in KINDS}
