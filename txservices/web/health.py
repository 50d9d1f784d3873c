"""The pages of ``monitoring.health``, as a listener serves them among the URLs of services."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from txservices.monitoring.health import JSON, PAGES, TEXT
from txservices.web.messages import HttpRequest
from txservices.web.problems import error_response
from txservices.web.received import Received

log = Logger()


class HealthPage:
    """One of them.

    Args:
        url: a key of ``PAGES``.
        not_ready: gives the reasons why the process can't do its work now.
    """

    method = "GET"

    def __init__(self, url: str, not_ready: Callable[[], list[str]]) -> None:
        self.url = url
        self.where = f"the page {url}"
        self.not_ready = not_ready

    def get_url_rule(self) -> Rule:
        return Rule(self.url, methods=[self.method])

    def serve(self, received: Received, request: HttpRequest) -> None:
        """Answer. An error is logged, and answered 500."""
        as_json = request.accept_mimetypes.best_match([TEXT.partition(";")[0], JSON]) == JSON
        try:
            page = PAGES[self.url](self.not_ready, as_json)
        except Exception:
            log.failure("{page} can't be answered", page=self.where)
            received.answer(error_response("see the log", 500, received.site.as_problem))
            return
        headers = {"Cache-Control": "no-store"}
        received.answer(Response(page.body, page.status, headers, content_type=page.content_type))
