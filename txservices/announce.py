"""What a start tells the one who started it: the services, the addresses, and what to type next.

The lines to type are made from the entrypoints that really run. Pure: containers in, lines out.
"""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# by dotted name: saying what to type must not load klein or the AMQP client for a service that uses neither
HTTP = "txservices.web.handlers.HttpRequestHandler"
RPC = "txservices.rpc.Rpc"
EVENTS = "txservices.events.EventHandler"

# an argument's annotation -> a value of that type to try it with
VALUES: dict[Any, Any] = {int: 42, float: 1.5, bool: True, list: [], dict: {}}
VALUES.update({kind.__name__: value for kind, value in list(VALUES.items())})
# a converter in a URL -> a text that fits it
PATHS = {"int": "42", "float": "1.5", "path": "a/b", "uuid": "12345678-1234-5678-1234-567812345678"}
URL_VARIABLE = re.compile(r"<(?:(?P<converter>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")


def started(containers: Iterable[Any], http: str | None, broker: str | None, options: str = "") -> list[str]:
    """The lines for running `containers`; `options` goes with every `txservices` line."""
    containers = list(containers)
    lines = [f"services: {', '.join(container.service_name for container in containers)}"]
    if http is not None:
        lines.append(f"http: {http}")
    if broker is not None:
        lines.append(f"broker: {broker}")
    typed = [line for container in containers for line in lines_to_type(container, http or "", options)]
    return lines + (["to try:", *(f"  {line}" for line in dict.fromkeys(typed))] if typed else [])


def lines_to_type(container: Any, http: str, options: str) -> Iterator[str]:
    for entrypoint in sorted(container.entrypoints, key=lambda found: str(found.method_name)):
        make = next((LINES[name] for name in kinds(entrypoint) if name in LINES), None)
        if make is not None:
            yield make(container, entrypoint, http, options)


def uses(containers: Iterable[Any], kind: str) -> bool:
    """Whether any entrypoint is a `kind`, which is a class's dotted name."""
    return any(kind in kinds(entrypoint) for container in containers for entrypoint in container.entrypoints)


def kinds(extension: Any) -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(extension).__mro__]


def call_line(container: Any, entrypoint: Any, http: str, options: str) -> str:
    method = getattr(container.service_cls, entrypoint.method_name)
    values = [
        value_for(parameter)
        for parameter in list(inspect.signature(method).parameters.values())[1:]
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    arguments = f" {as_argument(values)}" if values else ""
    return f"txservices call{options} {container.service_name}.{entrypoint.method_name}{arguments}"


def dispatch_line(container: Any, entrypoint: Any, http: str, options: str) -> str:
    names = f"{shlex.quote(entrypoint.source_service)} {shlex.quote(entrypoint.event_type)}"
    return f"txservices dispatch{options} {names} {as_argument('payload')}"


def curl_line(container: Any, entrypoint: Any, http: str, options: str) -> str:
    method = entrypoint.method.split(",")[0]
    how = {"GET": "", "POST": " -d 'post body'", "HEAD": " --head"}.get(method, f" -X {method}")
    url = URL_VARIABLE.sub(lambda found: PATHS.get(found["converter"], found["name"]), entrypoint.url)
    return f"curl -i{how} {shlex.quote(http + url)}"


LINES: dict[str, Callable[[Any, Any, str, str], str]] = {
    HTTP: curl_line,
    RPC: call_line,
    EVENTS: dispatch_line,
}


def value_for(parameter: inspect.Parameter) -> Any:
    return VALUES.get(parameter.annotation, parameter.name)


def as_argument(value: Any) -> str:
    return shlex.quote(json.dumps(value, ensure_ascii=False))
