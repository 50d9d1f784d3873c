"""What is typed for a call: the method's name, and its arguments as JSON."""

from __future__ import annotations

import json
from typing import Any

from txservices.exceptions import CommandError


def method_of(target: str) -> tuple[str, str]:
    """The service and the method of ``SERVICE.METHOD``. ``CommandError`` if the text has another form."""
    service, dot, method = target.rpartition(".")
    if not (service and dot and method):
        raise CommandError(f"{target!r} names no method: write service.method")
    return service, method


def read_arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call: an array holds positional ones, an object keyword ones."""
    read = read_json(text)
    if not isinstance(read, (list, dict)):
        raise CommandError(f"arguments {text}: write an array, as in '[{text}]', or an object")
    return (read, {}) if isinstance(read, list) else ([], read)


def read_json(text: str) -> Any:
    """The value in a text of JSON. ``CommandError`` if it is no JSON."""
    try:
        return json.loads(text)
    except ValueError as error:
        quoted = json.dumps(text, ensure_ascii=False)
        raise CommandError(f"{text} is not JSON ({error}): a text is written '{quoted}'") from None
