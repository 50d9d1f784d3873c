"""Reads the configuration from a YAML file, in which values may come from the environment.

    AMQP_URI: amqp://${USER:guest}:${PASSWORD:guest}@${HOST:localhost}     # several in one value
    max_workers: ${WORKERS:10}                                            # the number 10, by default
    SERIALIZERS: !env_var "${SERIALIZERS:{}}"                             # a quoted value needs the tag
    password: !raw_env_var "${PASSWORD}"                                  # with this tag it stays text

A value is first expanded as text and then read again as YAML. A `${` inside an environment variable is left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from txservices.exceptions import ConfigurationError

VARIABLE = re.compile(r"\$\{(?P<name>[^}:{\s]+)(?P<end>[:}])")
HAS_VARIABLE = re.compile(r".*\$\{.*\}.*", re.DOTALL)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` and `${NAME:default}` replaced. A default may contain further ones.

    A variable that is set but empty counts as set. A `${` without its closing brace stays as it is.
    """
    done: list[str] = []
    position = 0
    while (found := VARIABLE.search(text, position)) is not None:
        end = found.end() if found["end"] == "}" else closing_brace(text, found.end())
        if end is None:
            break
        done.append(text[position : found.start()])
        value = environ.get(found["name"])
        done.append(expand(text[found.end() : end - 1], environ) if value is None else value)
        position = end
    return "".join([*done, text[position:]])


def closing_brace(text: str, position: int) -> int | None:
    """The position after the brace that closes the one before `position`. Pairs of braces in between are skipped."""
    depth = 1
    for place in range(position, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return None


class Loader(yaml.SafeLoader):
    """YAML's safe loader, with the environment's variables."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        super().__init__(text)
        self.environ = environ


def read_value(loader: Loader, node: yaml.ScalarNode) -> Any:
    """Expand a scalar, then read it as YAML: `5` becomes a number, an empty text becomes None."""
    text = expand(loader.construct_scalar(node), loader.environ)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        # the text itself is not shown, since it may be a secret
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{node.value} is not YAML once expanded (!raw_env_var keeps it text)",
            node.start_mark,
        ) from None


def read_text(loader: Loader, node: yaml.ScalarNode) -> str:
    """Expand a scalar and leave it as text."""
    return expand(loader.construct_scalar(node), loader.environ)


Loader.add_implicit_resolver("!env_var", HAS_VARIABLE, None)
Loader.add_constructor("!env_var", read_value)
Loader.add_constructor("!raw_env_var", read_text)


def parse(text: str, source: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The config in a YAML text. ``ConfigurationError`` if it can't be read; `source` names the text in it."""
    try:
        config = Loader(text, environ).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise ConfigurationError(f"{source}{where(error)}: {what(error)}: correct the YAML there") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source} is not YAML: {error}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise ConfigurationError(f"{source} contains a {kind}: write keys with values, such as `max_workers: 10`")
    return config


def where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f", line {mark.line + 1}"


def what(error: yaml.MarkedYAMLError) -> str:
    return " ".join(part for part in (error.context, error.problem) if part)


def load(path: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The config in the file at `path`. ``ConfigurationError`` says which file and line are wrong, and what to do."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the config file {path}: {error.strerror}: give the path of a YAML file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    return parse(text, path, environ)


def define(text: str, environ: Mapping[str, str] = os.environ) -> tuple[str, Any]:
    """Key and value of a typed `KEY=VALUE`, with the value read as in a file. May raise ``ConfigurationError``."""
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        raise ConfigurationError(f"{text!r} defines nothing: write KEY=VALUE, as in max_workers=5")
    try:
        return key.strip(), Loader(value, environ).get_single_data()
    except yaml.YAMLError as error:
        # the value itself is not shown, since it may be a secret
        reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else type(error).__name__
        raise ConfigurationError(f"the value of {key.strip()} is not YAML ({reason}): quote a text") from None
