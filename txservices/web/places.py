"""A part of the URLs of a process that no method serves, but an attribute of the service: everything below a prefix.

    class Shop:
        name = "shop"
        assets = Static("/assets", "assets")

``Static`` and ``Mount`` are the two kinds. They are entrypoints, so they stop before the service's dependencies do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from txservices import configuration
from txservices.exceptions import ConfigurationError
from txservices.extensions import Entrypoint, Extension
from txservices.web.messages import HttpRequest
from txservices.web.problems import error_response, unavailable
from txservices.web.received import Answer, Received
from txservices.web.server import WebServer

log = Logger()


class Place(Entrypoint):
    """Serves a prefix of the URLs.

    Args:
        url: the prefix, as ``/assets``; ``/`` for all URLs that nobody else serves.
        auth: who may come there: see ``auth``.

    Attributes:
        prefix: the same without a slash at its end.
    """

    server = WebServer()
    stopped = False
    method: str | None = None  # the HTTP method that it takes; None for any

    def __init__(self, url: str, auth: Callable[[HttpRequest], Any] | None = None) -> None:
        super().__init__()
        self.url = url
        self.auth = auth
        self.prefix = url.rstrip("/") if isinstance(url, str) else ""

    def bind(self, container: Any, name: str | None = None) -> Any:
        bound = Extension.bind(self, container, name)  # an Entrypoint's own looks at the method that it calls
        bound.method_name = name
        return bound

    @property
    def where(self) -> str:
        """Service and attribute, as ``service.attribute``."""
        return f"{self.container.service_name}.{self.method_name}"

    def setup(self) -> None:
        if not (isinstance(self.url, str) and self.url.startswith("/")) or "<" in self.url:
            raise ConfigurationError(f"{self.where}: {self.url!r} is no prefix of a URL: write one, as /assets")
        self.as_problem = configuration.WEB_PROBLEM_DETAILS.of(self.container.config)
        self.server.register_provider(self)

    def stop(self) -> Deferred[None]:
        """From now on it answers 503."""
        self.stopped = True
        return self.server.unregister_provider(self)

    def kill(self) -> Deferred[None]:
        return self.stop()

    def get_url_rule(self) -> Rule:
        """The URLs below the prefix, as a rule of werkzeug's."""
        below = f"{self.prefix}<below:path>" if self.prefix else "/<below(root=True):path>"
        return Rule(below, methods=None if self.method is None else [self.method], merge_slashes=False)

    def serve(self, received: Received, request: HttpRequest) -> None:
        """Answer a request. Klein calls this as its endpoint."""
        if self.stopped:
            received.answer(unavailable(self.as_problem))
            return
        try:
            if self.auth is not None:
                request.user = self.auth(request)
            path = request.path_values["path"]
            self.serve_below(received, request, path if self.prefix else f"/{path}")
        except HTTPException:
            raise  # the router answers it
        except Exception as error:
            self.broken(Failure(error), received)

    def serve_below(self, received: Received, request: HttpRequest, path: str) -> None:
        """Answer a request for a path below the prefix: empty, or from its slash on."""
        raise NotImplementedError

    def send(self, answer: Answer, received: Received) -> None:
        """Send an answer. A stop waits until it is sent."""
        sending = received.answer(answer)
        if sending is not None:
            sending.done.addErrback(self.broken, received)
            self.container.workers.leave(sending.done)

    def broken(self, failure: Failure, received: Received) -> None:
        """Answer 500, with the error in the log; if a part of an answer is sent already, cut the connection."""
        log.failure("{place}: {request} is answered 500", failure, place=self.where, request=received)
        if not received.startedWriting:
            received.answer(error_response("internal error, the log has it", 500, self.as_problem))
        elif received.channel is not None:
            received.channel.loseConnection()
