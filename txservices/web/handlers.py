"""The entrypoint ``http``: each request runs a method in a worker, and the method's result becomes the response.

    Router -> serve -> handle_request -> spawn_worker -> method -> answer_of -> Received.answer

A subclass can override ``get_url_rule``, ``get_entrypoint_parameters``, ``response_from_result``,
``response_from_exception`` or ``handle_request``. Its decorator is ``Subclass.decorator``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Unpack
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from txservices import configuration
from txservices.callids import on_behalf_of
from txservices.exceptions import BadRequest, CallerGone, ConfigurationError, ContainerBeingKilled, WorkerTimeout
from txservices.extensions import Entrypoint, EntrypointOptions, ExcInfo, Turns, WorkerContext, new_call_id
from txservices.safe import brief, name_of, safe_for_serialization, shown
from txservices.utils import tasks
from txservices.web.bodies import Sending, body_of
from txservices.web.cors import Cors
from txservices.web.finishing import Finishing, finishing_of
from txservices.web.messages import HttpRequest
from txservices.web.middleware import middleware_of, wrapped
from txservices.web.problems import error_response, http_response, status_of, unavailable
from txservices.web.received import Answer, Received
from txservices.web.returns import plain_of, response_of
from txservices.web.server import WebServer
from txservices.web.uploads import nothing
from txservices.workers import WAITS, failure_of

__all__ = ["HttpRequestHandler", "http"]

log = Logger()


class HttpRequestHandler(Entrypoint):
    """Calls the method for each request to a URL.

    Args:
        method: an HTTP method, or several with commas between them. GET includes HEAD.
        url: a path, which may have werkzeug's converters, as in ``/get/<int:value>``.
        cancel_on_disconnect: whether a worker that waits is cancelled when its client leaves, and with it the calls
            that it waits for. One in a thread can't be.
        cors: which pages of other origins may use the URL, in place of ``WEB_CORS``; False for none.
        conditional: whether a client that has the answer already is told so, by ETags, and may ask for parts of it.
        compress: whether ``WEB_COMPRESS_FROM`` is for this URL, too.
        stream: whether the method begins before the body has come, and reads that as it comes from ``request.stream``:
            see ``uploads``.
        auth: who may call it: see ``auth``.
        body_max: bytes of the longest body, in place of ``WEB_BODY_MAX``.
        timeout: seconds after which the client is answered 504, and the worker is cancelled if it is not in a thread.
            If no worker was free until then, it is 503.

    The method is called with a werkzeug ``Request``, and with the URL's variables as keyword arguments. It returns a
    body, ``(status, body)``, ``(status, headers, body)`` or a werkzeug ``Response``. The body is a str, bytes, None, or
    what is written as JSON: see ``returns``. An iterator or an async iterator in its place, or in the ``Response``,
    makes the body while it is sent. A werkzeug ``HTTPException`` that it raises, as by ``abort(404)``, is the answer
    with that status.

    Attributes:
        as_problem: whether errors are answered as problem details.
        finishing: what is done to the answers before they are sent; None for nothing.
    """

    server = WebServer()
    told_exceptions = (HTTPException, BadRequest)
    apart = True
    as_problem = False
    stopped = False
    failing: WorkerContext | None = None  # the worker of the exception that response_from_exception has now

    finishing: Finishing | None = None

    def __init__(
        self,
        method: str,
        url: str,
        cancel_on_disconnect: bool = False,
        cors: Cors | bool | None = None,
        conditional: bool = False,
        compress: bool = True,
        stream: bool = False,
        auth: Callable[[HttpRequest], Any] | None = None,
        body_max: int | None = None,
        timeout: float | None = None,
        **options: Unpack[EntrypointOptions],
    ) -> None:
        super().__init__(**options)
        self.cors = cors
        self.conditional = conditional
        self.compress = compress
        self.stream = stream
        self.auth = auth
        self.body_max = body_max
        self.timeout = timeout
        self.cancel_on_disconnect = cancel_on_disconnect
        self.method = method
        self.url = url

    @property
    def where(self) -> str:
        """Service and method, as ``service.method``."""
        return f"{self.container.service_name}.{self.method_name}"

    def setup(self) -> None:
        self.sending: dict[Sending, None] = {}  # the responses that are made while they are sent
        config = self.container.config
        self.as_problem = configuration.WEB_PROBLEM_DETAILS.of(config)
        self.finishing = finishing_of(config, self.cors, self.conditional, self.compress)
        cls = type(self)
        self.plain = (  # whether a result can be sent without a Response made of it, which is much quicker
            cls.response_from_result is HttpRequestHandler.response_from_result
            and cls.handle_request is HttpRequestHandler.handle_request
            and self.finishing is None
        )
        self.handle: Callable[[HttpRequest], Any] = self.handle_request
        self.check_limits()
        wraps = middleware_of(config)
        if wraps:
            self.plain = False
            self.handle = wrapped(self.handle_request, wraps, self.response_to)
        self.server.register_provider(self)

    def check_limits(self) -> None:
        """``ConfigurationError`` for limits that can't be."""
        for option, value, kinds in (("body_max", self.body_max, int), ("timeout", self.timeout, (int, float))):
            if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not value > 0):
                raise ConfigurationError(f"{self.where}: {option}: {brief(value)} is no number above 0")

    def stop(self) -> Deferred[None]:
        """From now on the URL answers 503; running workers still answer. The process's last one closes the port."""
        self.stopped = True
        for sending in [each for each in self.sending if each.body.endless]:
            sending.end()
        return self.server.unregister_provider(self)

    def kill(self) -> Deferred[None]:
        return self.stop()

    def get_url_rule(self) -> Rule:
        """The URL and the methods to serve, as a rule of werkzeug's."""
        return Rule(self.url, methods=[method.strip() for method in self.method.split(",")])

    def get_entrypoint_parameters(self, request: HttpRequest) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The positional and keyword arguments for the method."""
        return (request,), request.path_values

    def serve(self, received: Received, request: HttpRequest) -> None:
        """Handle a request and send the answer. Klein calls this as its endpoint."""
        try:
            if self.stopped:
                self.send(unavailable(self.as_problem), received, request)
                return
            answer = self.handle(request)
            if isinstance(answer, WAITS):
                waiting = answer if isinstance(answer, Deferred) else tasks.run(answer)
                # The Deferred is not given to Klein, which would cancel it when the client leaves: the worker goes on.
                waiting.addCallback(self.send, received, request)
                waiting.addErrback(self.wait_failed, received)
                return
            self.send(answer, received, request)
        except BaseException as error:
            self.broken(received, error)

    def send(self, answer: Answer, received: Received, request: HttpRequest) -> None:
        if self.finishing is not None:
            assert isinstance(answer, Response), "nothing plain is made here"
            answer = self.finishing.finish(request, answer)
        if request.finishers is not None and isinstance(answer, Response):
            for finish in request.finishers:
                finish(answer)
        sending = received.answer(answer)
        if sending is not None:
            self.sending[sending] = None
            received.needs_client = sending.body.endless
            sending.done.addErrback(self.wait_failed, received)
            sending.done.addBoth(lambda _: self.sending.pop(sending))
            self.container.workers.leave(sending.done)

    def wait_failed(self, failure: Failure, received: Received) -> None:
        assert failure.value is not None
        self.broken(received, failure.value)

    def broken(self, received: Received, error: BaseException) -> None:
        """Answer 500 after an error in an overridden method, or for a response that can't be sent."""
        response = self.internal_error(error)
        if not received.startedWriting:
            received.answer(response)
        elif received.channel is not None:
            received.channel.loseConnection()

    def handle_request(self, request: HttpRequest) -> Any:
        """Run a worker for the request. Gives the answer, or a Deferred that fires with it if the worker waits."""
        call = Call(self, request)
        if self.stream and request.body is None:
            request.body = nothing()
        try:
            if self.auth is not None:
                request.user = self.auth(request)
            context_data = self.server.context_data_for(request)
            args, kwargs = self.get_entrypoint_parameters(request)
            self.check_signature(args, kwargs)
            begin = partial(self.begin, call, request, args, kwargs, context_data)
            workers = self.container.workers
            if not self.full or workers.cancelled:
                begin()
            else:
                call.begin_later(workers, request.received, begin)
        except ContainerBeingKilled:
            return unavailable(self.as_problem)
        except BaseException as error:
            return self.response_to(error, None)
        return call.answer if call.answer is not None else call.wait()

    def begin(self, call: Call, request: HttpRequest, args: Any, kwargs: Any, context_data: dict[str, Any]) -> None:
        """Begin the worker of a request."""
        worker = self.container.spawn_worker(self, args, kwargs, context_data, call.handle_result)
        call.worker = worker
        if self.cancel_on_disconnect and call.answer is None:
            request.received.needs_client = True
            request.received.notifyFinish().addErrback(partial(self.client_left, worker))

    def client_left(self, worker: WorkerContext, _: Failure) -> None:
        """The client has gone before the answer: end its worker."""
        if self.container.workers.abort_worker(worker, CallerGone("its HTTP client has left")):
            on_behalf_of(worker, log.info, "{worker} is cancelled: its client has left", worker=worker)

    def answer_of(self, worker: WorkerContext, result: Any, exc_info: ExcInfo | None, plain: bool = False) -> Answer:
        """The answer for the outcome of a worker, a plain one if it may be. Raises nothing."""
        if exc_info is not None:
            return self.response_to(exc_info[1], worker)
        try:
            if plain:
                quick = plain_of(result)
                if quick is not None:
                    return quick
            response = self.response_from_result(result)
            if not response.is_sequence:
                body: Any = body_of(response)  # here, in the worker's context
                response.response = body
                body.threads = self.container.workers.threads if worker.blocking else None
            return response
        except BaseException as error:
            return self.response_to(error, worker)

    def response_to(self, error: BaseException, worker: WorkerContext | None) -> Response:
        self.failing = worker
        try:
            if (status_of(error) or 0) >= 500:
                log.failure("{where} is answered {error!r}", failure_of(error), where=self.where, error=shown(error))
            return self.response_from_exception(error)
        except BaseException as another:
            return self.internal_error(another)
        finally:
            self.failing = None

    def expects(self, error: BaseException) -> bool:
        """Whether an error is its client's fault, and so no fault of the service."""
        status = status_of(error)
        return super().expects(error) or issubclass(type(error), BadRequest) or (status is not None and status < 500)

    def response_from_result(self, result: Any) -> Response:
        """The response for the method's result."""
        return response_of(result)

    def response_from_exception(self, exc: BaseException) -> Response:
        """The response for an exception: 400 with its text if it is the client's fault, else 500.

        It is the client's fault if it is a ``BadRequest`` or one of the entrypoint's ``expected_exceptions``. A
        ``HTTPException`` of werkzeug's has a response of its own. A worker that took too long is 504.
        """
        if issubclass(type(exc), (BadRequest, *self.expected_exceptions)):
            return error_response(f"{name_of(type(exc))}: {safe_for_serialization(exc)}", 400, self.as_problem)
        if type(exc) is CallerGone:
            return error_response("the client has left", 499, self.as_problem)  # nginx's status, in logs and metrics
        if type(exc) is WorkerTimeout:
            return error_response("the method took too long", 504, self.as_problem)
        if status_of(exc) is not None:
            return http_response(exc, self.as_problem)  # type: ignore[arg-type]  # it has a status
        return self.internal_error(exc)

    def internal_error(self, error: BaseException) -> Response:
        """A response of 500 with a call id. The error is in the log under that id."""
        worker = self.failing
        if worker is not None:  # the container has logged the traceback already
            call_id = worker.call_id
            log.error("call {call_id} is answered 500: {error!r}", call_id=call_id, error=shown(error))
        else:
            call_id = f"{self.where}.{new_call_id()}"
            failure = failure_of(error)
            log.failure("call {call_id} is answered 500", failure, call_id=call_id)
        return error_response(f"internal error, the log has it as call {call_id}", 500, self.as_problem)


class Call:
    """A request while its worker runs. It has the answer if the worker gave one at once, and else waits for it.

    Attributes:
        status: the answer's; None until there is one.
    """

    __slots__ = ("answer", "begin", "handler", "request", "status", "timer", "turn", "waiting", "worker")

    def __init__(self, handler: HttpRequestHandler, request: HttpRequest) -> None:
        self.handler = handler
        self.request = request
        self.status: int | None = None
        self.answer: Answer | None = None
        self.begin: Callable[[], Any] | None = None
        self.waiting: Deferred[Answer] | None = None
        self.worker: WorkerContext | None = None

    def handle_result(self, worker: WorkerContext, result: Any, exc_info: ExcInfo | None) -> Any:
        received = self.request.received
        if received.site.access is not None:
            received.call_id = worker.call_id
        handler = self.handler
        plain = handler.plain and self.request.finishers is None
        answer = handler.answer_of(worker, result, exc_info, plain)
        self.status = answer.status_code
        if self.waiting is None:
            self.answer = answer
        elif not self.waiting.called:
            self.waiting.callback(answer)
        return result, exc_info

    def begin_later(self, workers: Turns, received: Received, begin: Callable[[], Any]) -> None:
        """Begin a worker when another one has ended, unless the client has left by then, or it takes too long."""
        queue = self.handler.server.queue
        if queue.full:
            self.answer = queue.busy(self.handler.as_problem)
            return
        self.begin = begin
        self.turn = workers.wait(self.handler, self.begin_now)
        self.timer = queue.add(self.give_up)
        received.notifyFinish().addErrback(self.client_left)

    def begin_now(self) -> None:
        begin, self.begin = self.begin, None
        self.handler.server.queue.done(self.timer)
        if begin is not None:
            begin()

    def give_up(self) -> None:
        """It has waited for too long."""
        if self.waiting is not None and not self.waiting.called:
            self.waiting.callback(self.handler.server.queue.busy(self.handler.as_problem))

    def time_is_up(self) -> None:
        """The ``timeout`` of the URL has passed."""
        assert self.waiting is not None
        handler = self.handler
        if self.begin is not None:
            self.waiting.callback(handler.server.queue.busy(handler.as_problem))
            return
        worker = self.worker
        log.warn("{worker} is answered 504: it took over {seconds:g} s", worker=worker, seconds=handler.timeout)
        if worker is not None:
            handler.container.workers.abort_worker(worker, WorkerTimeout(f"it took longer than {handler.timeout:g} s"))
        if not self.waiting.called:  # it runs in a thread, or goes on though it is cancelled
            self.waiting.callback(error_response("the method took too long", 504, handler.as_problem))

    def client_left(self, _: Any) -> None:
        if self.begin is not None and self.waiting is not None and not self.waiting.called:
            self.waiting.callback(unavailable(self.handler.as_problem))

    def wait(self) -> Deferred[Answer]:
        waiting: Deferred[Answer] = Deferred()
        self.waiting = waiting
        pending = self.handler.server.pending
        pending[waiting] = None
        handler = self.handler
        ending = None
        if handler.timeout is not None:
            ending = handler.container.clock.callLater(handler.timeout, self.time_is_up)

        def answered(answer: Any) -> Any:
            if ending is not None and ending.active():
                ending.cancel()
            del pending[waiting]
            if self.begin is not None:
                self.begin = None  # and with it the request's body
                self.handler.container.workers.forget(self.turn)
                self.handler.server.queue.done(self.timer)
            return answer

        return waiting.addBoth(answered)


http = HttpRequestHandler.decorator
