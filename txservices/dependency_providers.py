"""Dependencies that need nothing outside the process."""

from __future__ import annotations

from typing import Any

from txservices.extensions import DependencyProvider, WorkerContext


class Config(DependencyProvider):
    """The configuration: a copy for each worker, so that one can't change another's."""

    def get_dependency(self, worker_ctx: WorkerContext) -> dict[str, Any]:
        return dict(worker_ctx.config)
