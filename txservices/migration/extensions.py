"""``nameko.extensions``: ours, with a collector of providers that waits."""

from __future__ import annotations

from typing import Any

from txservices import extensions
from txservices.constants import ENTRYPOINTS_ATTRIBUTE as ENTRYPOINT_EXTENSIONS_ATTR
from txservices.extensions import (
    DependencyProvider,
    Entrypoint,
    Extension,
    SharedExtension,
    is_dependency,
    is_entrypoint,
    is_extension,
    iter_extensions,
    register_entrypoint,
)
from txservices.migration.waiting import waits

__all__ = [
    "ENTRYPOINT_EXTENSIONS_ATTR",
    "DependencyProvider",
    "Entrypoint",
    "Extension",
    "ProviderCollector",
    "SharedExtension",
    "is_dependency",
    "is_entrypoint",
    "is_extension",
    "iter_extensions",
    "register_entrypoint",
]


class ProviderCollector(extensions.ProviderCollector):
    """nameko's: it waits in the thread that it is called in, and may be called in any."""

    register_provider: Any = waits(extensions.ProviderCollector.register_provider)
    unregister_provider: Any = waits(extensions.ProviderCollector.unregister_provider)
    wait_for_providers: Any = waits(extensions.ProviderCollector.wait_for_providers)
    stop: Any = waits(extensions.ProviderCollector.stop)
