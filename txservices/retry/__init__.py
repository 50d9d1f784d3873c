"""What fails is tried again later, and after that it is parked: ``Retry``, ``Reject``.

The way of a message whose handler has failed: ``failures`` asks the policy -> a copy with ``marks`` is published to a
delay queue, or to the parking queue -> it is confirmed -> the message is acked.
"""

from __future__ import annotations

from txservices.retry.policy import Reject, Retry

__all__ = ["Reject", "Retry"]
