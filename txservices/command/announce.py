"""The lines that a user can type to try the running services, one for each entrypoint. Pure."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from attrs import frozen

# As dotted names: importing the classes would load klein and the AMQP client even for a service that uses neither.
HTTP = "txservices.web.handlers.HttpRequestHandler"
RPC = "txservices.rpc.Rpc"
EVENTS = "txservices.events.EventHandler"

# annotation of an argument -> an example value
VALUES: dict[Any, Any] = {int: 42, float: 1.5, bool: True, list: [], dict: {}}
VALUES.update({kind.__name__: value for kind, value in list(VALUES.items())})
# converter in a URL -> an example value
PATHS = {"int": "42", "float": "1.5", "path": "a/b", "uuid": "12345678-1234-5678-1234-567812345678"}
LINES_MAX = 20  # lines at a start; those of 1,000 methods would fill a pipe that nobody reads, and block the process
URL_VARIABLE = re.compile(r"<(?:(?P<converter>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")


@frozen
class Reach:
    """How a typed line reaches these services.

    Attributes:
        command: how `txservices` is typed here.
        options: its options for the broker, each with a space before it.
        http: the address of the HTTP server, as ``http://127.0.0.1:8000``.
    """

    command: str = "txservices"
    options: str = ""
    http: str = ""


def lines_to_type(containers: Iterable[Any], reach: Reach) -> list[str]:
    """A line for each entrypoint of RPC, events and HTTP: at most ``LINES_MAX``, and then how many more there are."""
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
    """Whether any entrypoint is an instance of the class with the dotted name `kind`."""
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
    return f"curl -i{how} {shlex.quote((reach.http or 'http://HOST:PORT') + url)}"


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
