"""``nameko.config``, the configuration of the process, and the rest of the package ``nameko`` itself."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

__all__ = ["Config", "__version__", "config"]

__version__ = "2.14.1"  # of the nameko whose behaviour this is


class Config(UserDict[str, Any]):
    """The configuration of the process, as a dictionary that modules may read while they are imported."""

    def setup(self, config: Mapping[str, Any]) -> None:
        """Replace all of it."""
        self.data = dict(config)

    @contextmanager
    def patch(self, context_config: Mapping[str, Any], clear: bool = False) -> Iterator[None]:
        """Change it for the time of a ``with`` block or of a decorated function.

        With ``clear`` it has nothing but these keys meanwhile.
        """
        before = deepcopy(self.data)
        self.data = {**({} if clear else self.data), **context_config}
        try:
            yield
        finally:
            self.data = before


config = Config()
