"""Where nameko has ``UndeliverableMessage``, so that imports of it stay as they are: it is one of ``exceptions``."""

from __future__ import annotations

from txservices.exceptions import UndeliverableMessage

__all__ = ["UndeliverableMessage"]
