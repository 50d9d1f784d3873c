"""Calls of HTTP APIs: ``HttpClient`` gives a worker an ``HttpApi``, on treq and one pool of connections.

    api.get("/users/7")  ->  HttpCalling.run, within the call's time  ->  attempt  ->  HttpPool.request  ->  HttpAnswer
                                  ^-- after a delay, if it has failed and may be made again --'

The whole answer is read, up to a limit. So a ``blocking`` method gets it as a plain value, and any other as a Deferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isfinite
from typing import Any, NoReturn, TypedDict, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from typing_extensions import Unpack

from txservices import kinds
from txservices.authoring import mistakes_in
from txservices.extensions import DependencyProvider, WorkerContext
from txservices.httpanswer import Answering, HttpAnswer, retry_after
from txservices.httpcontext import CALL_ID_STACK_HEADER, ids_written, trace_written
from txservices.httppool import (
    Answered,
    HttpBodyTooLarge,
    HttpCallFailed,
    HttpConnectionError,
    HttpPool,
    HttpStatusError,
    HttpTimeout,
    Target,
)
from txservices.observers import CANCELLED, ERROR, OK, TIMEOUT, observers
from txservices.retry import Retry
from txservices.retry.policy import as_policy
from txservices.threads import in_reactor

__all__ = [
    "HttpAnswer",
    "HttpApi",
    "HttpBodyTooLarge",
    "HttpCall",
    "HttpCallFailed",
    "HttpClient",
    "HttpConnectionError",
    "HttpStatusError",
    "HttpTimeout",
]

HTTP_TIMEOUT = 30.0  # seconds
HTTP_BODY_MAX = 4 * 1024 * 1024  # bytes
REDIRECTS_MAX = 5

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})  # RFC 9110, 9.2.2
FOLLOWS = frozenset({"GET", "HEAD"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FOR_NOW = frozenset({429, 502, 503, 504})  # statuses after which a request is made again
HARMLESS = frozenset({"accept", "accept-language", "user-agent"})  # headers that another server may have, too
ATTEMPTS = Retry(attempts=3, delay=0.2, growth=3, delay_max=10, jitter=0.5)

log = Logger()


class HttpCall:
    """One request and its answer, as observers are told of them. Each attempt and each redirect is one.

    Attributes:
        service: whose worker calls.
        method, scheme, host, port: of the request.
        url: without a query, a user and a password, which may be secret.
        status: of the answer; None until there is one.
    """

    __slots__ = ("began", "host", "method", "port", "scheme", "service", "status", "url")

    def __init__(self, service: str, method: str, target: Target) -> None:
        self.service = service
        self.method = method
        self.scheme, self.host, self.port = target.origin
        self.url = target.shown
        self.status: int | None = None
        self.began = 0.0


class HttpOptions(TypedDict, total=False):
    """Options of one request: those of treq's, a ``timeout`` in seconds, and a ``Retry``, or None for one attempt."""

    params: Any
    headers: Mapping[str, str] | None
    data: Any
    json: Any
    files: Any
    auth: tuple[str, str]
    timeout: float | None
    retry: Retry | None


class HttpApi:
    """What ``HttpClient`` injects: each method is a request to the API.

    It gives a Deferred of an ``HttpAnswer``; in a method with ``blocking = True`` it waits, and gives the answer. All
    of them take these keywords:

        params, headers, data, json, files, auth    as in treq
        timeout     seconds for the answer, in place of the client's; the worker's own caller may leave less
        retry       a ``Retry`` in place of the client's, or None for one attempt

    The errors are subclasses of ``HttpCallFailed``, which say whom was asked for what: ``HttpTimeout``,
    ``HttpConnectionError`` and ``HttpBodyTooLarge``. A status is no error.
    """

    def __init__(self, client: HttpClient, context: WorkerContext) -> None:
        self._client = client
        self._context = context

    def request(self, method: str, path: str, **options: Unpack[HttpOptions]) -> Answering:
        """Ask for a path of the API, which is put behind its address. ``ValueError`` for one that can't be."""
        calling = HttpCalling(self._client, self._context, method.upper(), path, options)
        answer = in_reactor(calling.begin) if self._context.blocking else calling.begin()
        return cast(Answering, answer)

    def get(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("HEAD", path, **options)

    def options(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("OPTIONS", path, **options)

    def post(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Unpack[HttpOptions]) -> Answering:
        return self.request("DELETE", path, **options)


class HttpClient(DependencyProvider[HttpApi]):
    """Injects an ``HttpApi``, which calls an API over HTTP.

        api = HttpClient("https://api.example", timeout=5)

    All clients of a process share one pool of connections. A request has the headers ``X-Call-Id-Stack`` and, if the
    worker is part of a trace, ``traceparent``.

    A subclass can take the address from the configuration: it sets ``base_url`` in ``setup``, and calls this one's.

    Args:
        base_url: the API's address; paths are put behind it. Empty if each call has a whole URL.
        timeout: seconds for an answer, all attempts together. A worker whose caller gives up sooner has less.
        retry: how a request is made again that had no answer, or 429, 502, 503 or 504: only by methods that may be
            repeated (GET, HEAD, OPTIONS, PUT, DELETE), and no sooner than the answer's Retry-After. None for one
            attempt.
        headers: further ones of each request.
        body_max: bytes of an answer's body.
        send_context: whether the ids of calls and the trace are sent along.
    """

    pool: HttpPool

    def __init__(
        self,
        base_url: str = "",
        timeout: float = HTTP_TIMEOUT,
        retry: Retry | None = ATTEMPTS,
        headers: Mapping[str, str] | None = None,
        body_max: int = HTTP_BODY_MAX,
        send_context: bool = True,
    ) -> None:
        self.base_url = base_url
        self.timeout = timeout
        self.retry = retry
        self.headers = dict(headers or {})
        self.body_max = body_max
        self.send_context = send_context

    def setup(self) -> None:
        with mistakes_in(f"{self.container.service_name}.{self.attr_name}"):
            if self.base_url:
                Target(self.base_url)
            seconds_of(self.timeout)
            self.policy(self.retry)
        self.pool = self.container.shared.get("http client", HttpPool)

    def get_dependency(self, worker_ctx: WorkerContext) -> HttpApi:
        return HttpApi(self, worker_ctx)

    @staticmethod
    def policy(retry: Any) -> Retry | None:
        return None if retry is None else as_policy(retry, "None for one attempt")


def seconds_of(timeout: Any) -> float:
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not isfinite(timeout) or not 0 < timeout <= kinds.SECONDS_MAX:
        raise ValueError(f"timeout is {timeout!r}: give a number of seconds above 0, every call has to end")
    return float(timeout)


class HttpCalling:
    """One call of a worker's, with all its attempts."""

    def __init__(
        self, client: HttpClient, context: WorkerContext, method: str, path: str, options: HttpOptions
    ) -> None:
        if client.base_url and not path.startswith(("/", "?")) and path:
            raise ValueError(f"a path of {Target(client.base_url).shown} begins with a slash, unlike {path[:80]!r}")
        self.target = Target(client.base_url.rstrip("/") + path if path else client.base_url)
        self.client = client
        self.context = context
        self.clock = context.container.clock
        self.method = method
        self.timeout = seconds_of(options.pop("timeout", client.timeout))
        self.retry = client.policy(options.pop("retry", client.retry))
        self.headers = {**client.headers, **(options.pop("headers", None) or {})}
        self.options: Mapping[str, Any] = dict(options)
        if method not in IDEMPOTENT or not (options.get("files") is None and may_be_sent_again(options.get("data"))):
            self.retry = None
        self.attempt = 0
        self.cancelled = False
        self.call = f"{method} {self.target.shown}"
        self.session = client.pool.session()

    def begin(self) -> Deferred[HttpAnswer]:
        left = self.context.time_left()
        timeout = self.timeout if left is None else min(self.timeout, left)
        self.ends = self.clock.seconds() + timeout
        if timeout <= 0:
            late: Deferred[HttpAnswer] = Deferred()
            late.errback(HttpTimeout("the worker's own caller's time is over").of(self.call))
            return late
        self.answer: Deferred[HttpAnswer] = Deferred(self.cancel)
        self.running = Deferred.fromCoroutine(self.run())
        self.running.addBoth(self.answer.callback)
        return self.answer.addTimeout(timeout, self.clock, partial(self.late, timeout))

    def cancel(self, _: Any) -> None:
        # Noted, because Twisted ends what is cancelled with one of several errors, some of them of the network.
        self.cancelled = True
        self.running.cancel()

    def late(self, timeout: float, *_: Any) -> NoReturn:
        attempts = "" if self.attempt < 2 else f", in {self.attempt} attempts"
        raise HttpTimeout(f"no answer within {timeout:g} s{attempts}").of(self.call)

    async def run(self) -> HttpAnswer:
        while True:
            self.attempt += 1
            failed: HttpCallFailed | None = None
            answer = None
            try:
                answer = await self.attempted()
            except HttpConnectionError as error:
                if self.cancelled:
                    raise CancelledError() from error
                failed = error
            delay = self.delay_after(answer, failed)
            if delay is not None:
                told = failed or f"it has answered {answer and answer.status}"
                log.debug("{call} is made again in {delay:.3g} s: {told}", call=self.call, delay=delay, told=told)
                await deferLater(self.clock, delay)
            elif answer is None:
                raise failed  # type: ignore[misc]  # there is an answer or an error
            else:
                return answer

    def delay_after(self, answer: HttpAnswer | None, error: HttpCallFailed | None) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        policy = self.retry
        if policy is None or self.attempt >= policy.attempts:
            return None
        if (answer is not None and answer.status not in FOR_NOW) or (error is not None and not policy.wants(error)):
            return None
        delay = policy.delay_before(self.attempt + 1)
        wish = None if answer is None else retry_after(answer)
        if wish is not None:
            if wish > policy.delay_max:
                return None
            delay = max(delay, wish)
        return delay if self.clock.seconds() + delay < self.ends else None

    async def attempted(self) -> HttpAnswer:
        """One request, and those that its answers redirect to."""
        target, method, headers, options = self.target, self.method, self.headers, self.options
        for _ in range(REDIRECTS_MAX + 1):
            answered = await self.requested(method, target, headers, options)
            location = answered.headers.getRawHeaders("location")
            if answered.status not in REDIRECTS or method not in FOLLOWS or not location:
                url = target.url
                return HttpAnswer(answered.status, answered.headers, answered.body, self.call, url)
            try:
                further = target.joined(location[-1])
            except ValueError as error:
                raise HttpCallFailed(f"it redirects to what is no URL: {error}").of(self.call) from None
            if target.origin[0] == "https" and further.origin[0] != "https":
                raise HttpCallFailed(f"it redirects to {further.shown}, which is not safe").of(self.call)
            options = {}
            if further.origin != target.origin:  # headers may have secrets, and they are not for others
                headers = {name: value for name, value in headers.items() if name.lower() in HARMLESS}
            target = further
        raise HttpCallFailed(f"it has redirected {REDIRECTS_MAX} times, the last time to {target.shown}").of(self.call)

    async def requested(
        self, method: str, target: Target, headers: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Answered:
        sent = dict(headers)
        context = self.context
        ours = self.client.send_context and target.origin == self.target.origin
        if ours:
            ids = ids_written(context.call_id_stack)
            sent.update({**({CALL_ID_STACK_HEADER: ids} if ids else {}), **trace_written(context.data)})
        call = HttpCall(context.service_name, method, target)
        if observers.http_call_started:
            told = sent if ours else dict(sent)  # a trace is nothing for others
            observers.tell(observers.http_call_started, call, context, told)
        call.began = self.clock.seconds()
        try:
            answered = await self.session.request(method, target, sent, self.client.body_max, self.call, options)
        except BaseException as error:
            self.ended(call, error)
            raise
        call.status = answered.status
        self.ended(call, None)
        return answered

    def ended(self, call: HttpCall, error: BaseException | None) -> None:
        if not observers.http_call_ended:
            return
        seconds = self.clock.seconds() - call.began
        outcome = OK if error is None else ERROR
        if self.cancelled:  # by the end of its time, or by the worker
            outcome = TIMEOUT if self.clock.seconds() >= self.ends else CANCELLED
        observers.tell(observers.http_call_ended, call, outcome, seconds, error)


def may_be_sent_again(data: Any) -> bool:
    return data is None or isinstance(data, (bytes, str, Mapping, list, tuple))
