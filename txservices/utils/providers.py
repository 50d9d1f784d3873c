"""One extension for several others: ``ProviderCollector``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from txservices.utils.waiting import Waiters


class ProviderCollector:
    """Mixin for an extension that several others share, its providers. It ends when the last of them has stopped."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._providers: dict[Any, None] = {}  # in the order in which they came
        self._left: Waiters[None] = Waiters()

    def register_provider(self, provider: Any) -> None:
        """Called by a provider in its ``setup``."""
        self._providers[provider] = None

    def unregister_provider(self, provider: Any) -> Deferred[None] | None:
        """Called by a provider in its ``stop``. A subclass may return a Deferred for the provider to wait for."""
        self._providers.pop(provider, None)
        if not self._providers:
            self._left.fire(None)
        return None

    def wait_for_providers(self) -> Deferred[None]:
        """Fires when no provider is left; at once if there never was one."""
        return self._left.wait() if self._providers else succeed(None)

    def stop(self) -> Deferred[None]:
        """See ``Extension.stop``."""
        return self.wait_for_providers()
