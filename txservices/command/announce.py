"""What to type next: a line for each entrypoint that really runs. Pure: containers in, lines out."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen

# by dotted name: saying what to type must not load klein or the AMQP client for a service that uses neither
HTTP = "txservices.web.handlers.HttpRequestHandler"
RPC = "txservices.rpc.Rpc"
EVENTS = "txservices.events.EventHandler"

# an argument's annotation -> a value of that type to try it with
VALUES: dict[Any, Any] = {int: 42, float: 1.5, bool: True, list: [], dict: {}}
VALUES.update({kind.__name__: value for kind, value in list(VALUES.items())})
# a converter in a URL -> a text that fits it
PATHS = {"int": "42", "float": "1.5", "path": "a/b", "uuid": "12345678-1234-5678-1234-567812345678"}
LINES_MAX = 20  # of what a start says: 1,000 methods would fill a pipe that nobody reads, and the process with it
URL_VARIABLE = re.compile(r"<(?:(?P<converter>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")


@frozen
class Reach:
    """With what a line comes to these services: how `txservices` is typed, its options, and where HTTP listens."""

    command: str = "txservices"
    options: str = ""
    http: str = ""


def lines_to_type(containers: Iterable[Any], reach: Reach) -> list[str]:
    """A line to type for each entrypoint that something can be typed for; ``LINES_MAX`` of them, and how many more."""
    lines = []
    for container in containers:
        for entrypoint in container.entrypoints:
            make = next((LINES[kind] for kind in kinds(entrypoint) if kind in LINES), None)
            if make is not None:
                lines.append(make(container, entrypoint, reach))
    lines = list(dict.fromkeys(lines))
    more = len(lines) - LINES_MAX
    return lines if more <= 0 else [*lines[:LINES_MAX], f"and {more:,} more"]


def uses(containers: Iterable[Any], kind: str) -> bool:
    """Whether any entrypoint is a `kind`, which is a class's dotted name."""
    return any(kind in kinds(entrypoint) for container in containers for entrypoint in container.entrypoints)


def kinds(extension: Any) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(extension).__mro__]


def call_line(container: Any, entrypoint: Any, reach: Reach) -> str:
    method = getattr(container.service_cls, entrypoint.method_name)
    needed = [each for each in inspect.signature(method).parameters.values() if is_needed(each)][1:]
    arguments: Any = [value_for(parameter) for parameter in needed]
    if any(parameter.kind is parameter.KEYWORD_ONLY for parameter in needed):
        arguments = {parameter.name: value_for(parameter) for parameter in needed}
    target = shlex.quote(f"{container.service_name}.{entrypoint.method_name}")
    return f"{reach.command} call{reach.options} {target}{as_argument(arguments) if needed else ''}"


def dispatch_line(container: Any, entrypoint: Any, reach: Reach) -> str:
    event_type = re.sub("[*#]", "any", entrypoint.event_type)  # it may be a pattern
    names = f"{shlex.quote(entrypoint.source_service)} {shlex.quote(event_type)}"
    return f"{reach.command} dispatch{reach.options} {names}{as_argument('payload')}"


def curl_line(container: Any, entrypoint: Any, reach: Reach) -> str:
    method = entrypoint.method.split(",")[0]
    how = {"GET": "", "POST": " -d 'post body'", "HEAD": " --head"}.get(method, f" -X {method}")
    url = URL_VARIABLE.sub(lambda found: PATHS.get(found["converter"], found["name"]), entrypoint.url)
    return f"curl -i{how} {shlex.quote(reach.http + url)}"


LINES: dict[str, Callable[[Any, Any, Reach], str]] = {HTTP: curl_line, RPC: call_line, EVENTS: dispatch_line}


def is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def value_for(parameter: inspect.Parameter) -> Any:
    return VALUES.get(parameter.annotation, parameter.name)


def as_argument(value: Any) -> str:
    return " " + shlex.quote(json.dumps(value, ensure_ascii=False))
