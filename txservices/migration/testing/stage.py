"""A stage whose services are nameko's: blocking ones, on ports that other libraries reach, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from txservices.migration.containers import get_container_cls
from txservices.migration.runners import ServiceRunner
from txservices.shared import SharedServices
from txservices.testing import stage

__all__ = ["Stage"]


class Stage(stage.Stage):
    """See ``txservices.testing.stage.Stage``. kombu and requests reach its broker and web server."""

    runner_cls = ServiceRunner

    def container_cls(self, config: Mapping[str, Any]) -> type[Any]:
        return get_container_cls(config)

    def serve(self, shared: SharedServices, config: Mapping[str, Any]) -> None:
        """The services open their port themselves."""
