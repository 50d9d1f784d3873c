"""Reads YAML, and counts: a short one may become a billion values, and its reader is the slowest. Pure."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import yaml

from txservices.serialization.bounds import CONTAINER, Count

YAML_HERE_MAX = 512  # bytes of YAML that are decoded in the reactor: 2 kB of open brackets take its reader 0.4 s
YAML_VALUE = 10  # what a value counts in YAML, whose reader takes 0.1 ms and a kilobyte for each
YAML_DEPTH_MAX = 100  # lists and mappings inside each other; Python's recursion limit comes soon after
YAML_NUMBER_MAX = 4300  # characters of a number; Python's own limit for a whole one, which 1:30:59 would evade


class YamlLoader(yaml.SafeLoader):
    """PyYAML's SafeLoader, which counts as it reads. An alias counts as much as what it stands for.

    A list of nine aliases of a list of nine aliases … would otherwise be a billion values to whatever walks it.
    """

    def __init__(self, body: bytes, most: int) -> None:
        super().__init__(BytesIO(body))  # of a file it reads some kilobytes at a time
        self.count = Count(most)
        self.depth = 0
        self.counts: dict[int, int] = {}  # of the nodes that have anchors, by id

    def compose_node(self, parent: Any, index: Any) -> Any:
        before = self.count.values
        self.depth += 1
        if self.depth > YAML_DEPTH_MAX:
            raise ValueError(f"more than {YAML_DEPTH_MAX} lists and mappings inside each other")
        alias = self.check_event(yaml.AliasEvent)
        anchor = getattr(self.peek_event(), "anchor", None)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias:
            # an alias inside of what it stands for: a value that contains itself, which nothing could walk
            if id(node) not in self.counts:
                raise ValueError("an alias inside of the value that it stands for")
            self.count.add(self.counts[id(node)])
        else:
            self.count.add(YAML_VALUE * (1 if isinstance(node, yaml.ScalarNode) else 1 + CONTAINER))
            if anchor is not None:
                self.counts[id(node)] = self.count.values - before
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node. A long plain text is a text: to see that it is no number would take 0.1 s a megabyte."""
        if kind is yaml.ScalarNode and implicit[0] and len(value) > YAML_NUMBER_MAX:
            implicit = (False, True)
        tag: str = super().resolve(kind, value, implicit)
        return tag

    def construct_yaml_int(self, node: Any) -> int:
        if len(node.value) > YAML_NUMBER_MAX:
            raise ValueError(f"a number of more than {YAML_NUMBER_MAX} characters")
        number: int = super().construct_yaml_int(node)
        return number


YamlLoader.add_constructor("tag:yaml.org,2002:int", YamlLoader.construct_yaml_int)


def read_yaml(body: bytes, most: int) -> Any:
    """The value in a YAML body. ``ValueError`` or ``yaml.YAMLError`` if it can't be read."""
    loader = YamlLoader(body, most)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
