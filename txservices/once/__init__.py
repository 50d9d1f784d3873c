"""Messages that are handled once although they come twice: ``once=`` of ``event_handler`` and ``consume``.

    delivered -> Once: is it handled already, or does it run now? -> a worker -> OnceStore.seen, mark -> the method
              -> Once: handled, or not

A message is known by its ``message_id``. A message without an id always runs: nameko's publishers give no ids.
"""

from __future__ import annotations

from txservices.once.store import OnceStore

__all__ = ["OnceStore"]
