"""Dependencies that need nothing outside the process."""

from __future__ import annotations

from typing import Any

from txservices.extensions import DependencyProvider, WorkerContext

__all__ = ["Config"]


class Config(DependencyProvider[dict[str, Any]]):
    """Injects the configuration, as a dict. Each worker gets a copy, so that it can't change that of others."""

    def get_dependency(self, worker_ctx: WorkerContext) -> dict[str, Any]:
        return dict(worker_ctx.config)
