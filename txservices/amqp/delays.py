"""Messages that are to be delivered later. The broker holds them, so that a process may end meanwhile.

A delay queue has a time to live, and one exchange and routing key with which its messages go on after that. All
messages of one delay to one place wait in the same queue, one behind the other, so that no message holds up another.
That takes a queue for each delay. So that there are few, a delay is rounded to one of 35 steps in each power of ten: by
5 % at most.

The queue is durable, and the broker deletes it when it has not been declared for some time longer than its messages
live: ``OnDemand`` declares it more often than that. It is a quorum queue, because only those hand on what has expired
at least once: a classic queue forgets a message before the other queue has it on its disk, and a crash between the two
loses it. Pure.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left

__all__ = ["DECLARED_AGAIN", "DELAY_MAX", "DELAY_QUEUE", "UNUSED", "name_of", "shortened", "step_of"]

DELAY_QUEUE = "txservices.delay."  # how the names of delay queues begin
DECLARED_AGAIN = 60.0  # seconds after which a queue is declared once more before a message
UNUSED = 600.0  # seconds that a delay queue stays after the last message that it can have got
DELAY_MAX = 4_000_000.0  # seconds, 46 days: RabbitMQ's times are milliseconds in 32 bits, and ``UNUSED`` comes on top
NAME_MAX = 200  # bytes of a delay queue's name; AMQP has 255

# The steps from 10 to 100, of which each further power of ten is made: tenths up to 2, fifths up to 5, then halves.
STEPS = (*range(10, 20), *range(20, 50, 2), *range(50, 101, 5))


def step_of(seconds: float) -> int:
    """The step that is nearest to a delay of so many seconds. It is in milliseconds."""
    ms = seconds * 1000
    scale = 1
    while ms >= STEPS[-1] * scale:
        scale *= 10
    wanted = ms / scale
    if wanted < STEPS[0]:  # below 10 ms each millisecond is a step
        return max(1, round(ms))
    above = bisect_left(STEPS, wanted)
    near: int = min(STEPS[max(above - 1, 0)], STEPS[above], key=lambda step: abs(step - wanted))
    return near * scale


def name_of(exchange: str, routing_key: str, ms: int) -> str:
    """The name of the queue whose messages go there after so many milliseconds."""
    return shortened(f"{DELAY_QUEUE}{ms / 1000:g}s.{exchange}{'.' if exchange else ''}{routing_key}", NAME_MAX)


def shortened(name: str, most: int) -> str:
    """A name of so many bytes at most: the end of a longer one is replaced by a hash of it all."""
    encoded = name.encode()
    if len(encoded) <= most:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:32]
    return f"{encoded[: most - 33].decode(errors='ignore')}-{digest}"
