"""``nameko.testing.rabbit``: see ``txservices.testing.rabbit``, whose client this is, waiting."""

from __future__ import annotations

from txservices.migration.waiting import Waiting
from txservices.testing import rabbit
from txservices.testing.rabbit import HTTPError

__all__ = ["Client", "HTTPError"]


class Client(Waiting):
    """Each method makes a request of RabbitMQ's management, and returns what it answers."""

    def __init__(self, uri: str) -> None:
        super().__init__(rabbit.Client(uri))
