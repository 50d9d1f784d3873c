"""Reads the configuration from a YAML file, in which values may come from the environment.

    AMQP_URI: amqp://${USER:guest}:${PASSWORD:guest}@${HOST:localhost}     # several in one value
    max_workers: ${WORKERS:10}                                            # the number 10, by default
    SERIALIZERS: !env_var "${SERIALIZERS:{}}"                             # a quoted value needs the tag
    password: !raw_env_var "${PASSWORD}"                                  # with this tag it stays text

A value is first expanded as text and then read again as YAML. A `${` inside an environment variable is left alone.
One of our keys that comes out empty is a mistake (see ``unfilled``): a service would run with the default instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

import yaml

from txservices import configuration
from txservices.exceptions import ConfigurationError

VARIABLE = re.compile(r"\$\{(?P<name>[^}:{\s]+)(?P<end>[:}])")
HAS_VARIABLE = re.compile(r".*\$\{.*\}.*", re.DOTALL)


def expand(text: str, environ: Mapping[str, str], missing: list[str] | None = None) -> str:
    """`text` with each `${NAME}` and `${NAME:default}` replaced. A default may contain further ones.

    A variable that is set but empty counts as set. A `${` without its closing brace stays as it is. ``missing`` gets
    the names of variables that are neither set nor have a default.
    """
    done: list[str] = []
    position = 0
    while (found := VARIABLE.search(text, position)) is not None:
        end = found.end() if found["end"] == "}" else closing_brace(text, found.end())
        if end is None:
            break
        done.append(text[position : found.start()])
        value = environ.get(found["name"])
        if value is None:
            if found["end"] == "}" and missing is not None:
                missing.append(found["name"])
            value = expand(text[found.end() : end - 1], environ, missing)
        done.append(value)
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


def unfilled(name: str, value: yaml.Node | None, environ: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """What is wrong with a value of one of our keys that is empty, or has a variable in it that is not set.

    In words that begin with the key's name, each with the line that it is in.
    """
    key = configuration.KEYS.get(name)
    if key is not None:
        for scalar in scalars(value or yaml.ScalarNode("", "")):
            fault = fault_of(scalar, environ, key, isinstance(value, yaml.MappingNode))
            if fault is not None:
                yield name + fault, 1 + (scalar.start_mark.line if scalar.start_mark else 0)


def scalars(node: yaml.Node) -> list[yaml.ScalarNode]:
    """The scalars in a value, each once, however often an alias repeats them."""
    found: dict[int, yaml.Node] = {}
    left = [node]
    while left:
        each = left.pop()
        if id(each) not in found:
            found[id(each)] = each
            if isinstance(each, yaml.SequenceNode):
                left.extend(each.value)
            elif isinstance(each, yaml.MappingNode):
                left.extend(value for _, value in each.value)
    return [each for each in found.values() if isinstance(each, yaml.ScalarNode)]


def fault_of(
    node: yaml.ScalarNode, environ: Mapping[str, str], key: configuration.Key[Any], nested: bool
) -> str | None:
    text: str = node.value
    write = f"write a value{f', or null for {key.null}' if key.null else ''}, or leave the key out"
    if node.tag in ("!env_var", "!raw_env_var"):
        missing: list[str] = []
        expanded = expand(text, environ, missing)
        if missing:
            name = missing[0]
            return f": the environment has no {name}: set it, or write a default, as in ${{{name}:…}}"
        names = [found["name"] for found in VARIABLE.finditer(text)]
        return None if expanded.strip() else f" is empty, from {', '.join(names)} in the environment: {write}"
    if nested:  # in LOGGING both may be meant
        return None
    if not text.strip():
        return f" is empty: {write}"
    quoted = VARIABLE.search(text)
    if quoted is not None and node.style in ("'", '"'):
        name = quoted["name"]
        return f": ${{{name}}} in quotes is not filled in: leave out the quotes, or write !env_var before them"
    return None


def parse(
    text: str, source: str, environ: Mapping[str, str] = os.environ, typed: Container[str] = ()
) -> dict[str, Any]:
    """The config in a YAML text. ``ConfigurationError`` if it can't be read; `source` names the text in it.

    If a key is not filled in, the faults of the others are told along with that.
    """
    faults: list[str] = []
    try:
        loader = Loader(text, environ)
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            for pair in list(node.value):
                key, value = pair
                if isinstance(key, yaml.ScalarNode) and key.value not in typed:
                    found = [f"{source}, line {line}: {fault}" for fault, line in unfilled(key.value, value, environ)]
                    faults += found
                    if found:
                        node.value.remove(pair)
        config = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        fault = f"{source}{where(error)}: {what(error)}: correct the YAML there"
        raise ConfigurationError(*faults, fault) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{source} is not YAML: {error}") from error
    if faults:
        others = {name: value for name, value in (config or {}).items() if name not in typed}
        raise ConfigurationError(*faults, *configuration.faults_of(others))
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


def load(path: str, environ: Mapping[str, str] = os.environ, typed: Container[str] = ()) -> dict[str, Any]:
    """The config in the file at `path`. ``ConfigurationError`` says which file and line are wrong, and what to do.

    ``typed`` are the keys that the command line has as well.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the config file {path}: {error.strerror}: give the path of a YAML file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    return parse(text, path, environ, typed)


def define(text: str, environ: Mapping[str, str] = os.environ) -> tuple[str, Any]:
    """Key and value of a typed `KEY=VALUE`, with the value read as in a file. May raise ``ConfigurationError``."""
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        raise ConfigurationError(f"{text!r} defines nothing: write KEY=VALUE, as in max_workers=5")
    try:
        loader = Loader(value, environ)
        node = loader.get_single_node()
        faults = [f"--define: {fault}" for fault, _ in unfilled(key.strip(), node, environ)]
        if faults:
            raise ConfigurationError(*faults)
        return key.strip(), None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        # the value itself is not shown, since it may be a secret
        reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else type(error).__name__
        raise ConfigurationError(f"the value of {key.strip()} is not YAML ({reason}): quote a text") from None
