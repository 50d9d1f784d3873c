"""A server in memory in the place of those that an ``HttpClient`` asks, for tests: treq's ``StubTreq``.

    (container,) = [self.container(Shop)]
    answer_http(container, Api().app.resource())      # any resource of twisted.web's or Klein's
    await container.start()

Everything but the network is as always: paths, headers, retries, errors, and what observers are told.
"""

from __future__ import annotations

from treq.testing import StubTreq
from twisted.web.resource import IResource

from txservices.containers import ServiceContainer
from txservices.httppool import HttpPool, Session

__all__ = ["answer_http"]


class StubbedPool(HttpPool):
    """A pool whose requests a resource answers."""

    def __init__(self, resource: IResource) -> None:
        super().__init__()
        self.treq = StubTreq(resource)

    def session(self) -> Session:
        return Session(self, self.treq)


def answer_http(container: ServiceContainer, resource: IResource) -> None:
    """Have a resource answer all that the services of this container's process ask by an ``HttpClient``.

    To be called before the start: ``RuntimeError`` if a client has its connections already. A later call replaces the
    resource.
    """
    pool = container.shared.get("http client", lambda: StubbedPool(resource))
    if not isinstance(pool, StubbedPool):
        raise RuntimeError("a service with an HttpClient has started in this process: call answer_http before that")
    pool.treq = StubTreq(resource)
