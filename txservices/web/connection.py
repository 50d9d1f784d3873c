"""One client of WebSockets, and its requests, which are handled one at a time, in their order.

Socket -> Connection.receive -> handle -> Method.handle_message -> Connection.answer -> Socket
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from twisted.logger import Logger

from txservices.constants import CALL_ID_STACK_CONTEXT_KEY
from txservices.exceptions import (
    ContainerBeingKilled,
    MalformedRequest,
    MethodNotFound,
    UnserializableValueError,
    serialize,
)
from txservices.extensions import Entrypoint, ExcInfo, Turns, WorkerContext
from txservices.safe import shown
from txservices.serialization.bounds import HERE_MAX
from txservices.serialization.jsonreader import JsonReader, is_quick
from txservices.utils.background import in_background
from txservices.web.hub import Clients, written
from txservices.web.received import Received
from txservices.web.sockets import CloseReason

WAITING_MAX = 16  # requests of one socket that wait for their turn; beyond them nothing more is read from it
WAITING_BYTES_MAX = 1_048_576  # bytes of these; the one that crosses this is the last

STACK = CALL_ID_STACK_CONTEXT_KEY

Answer = Callable[[Any, BaseException | None], None]

log = Logger()


class Method(Protocol):
    """The entrypoint of a method that clients call.

    Attributes:
        stopped: whether its service takes no more requests.
    """

    @property
    def stopped(self) -> bool: ...

    def handle_message(self, connection: Connection, data: dict[str, Any], answer: Answer) -> None:
        """Run a worker and give its outcome to ``answer``. May raise ``IncorrectSignature``."""


class Sockets(Protocol):
    """What a client may ask of the WebSockets that it is one of.

    Attributes:
        connections: all clients.
        values_max: how many values a request may have.
        stopped: whether all services have stopped taking requests.
        methods: those that may be called, by their names.
    """

    connections: Clients
    values_max: int

    @property
    def stopped(self) -> bool: ...

    @property
    def methods(self) -> Mapping[str, Method]: ...


class Connection:
    """A client: its socket, and its requests, which are handled one at a time.

    Attributes:
        socket_id: its id, for methods and for the hub.
        contexts: the context data of the calls, for each service. All calls to a service share one object, so a call
            finds what an earlier call has changed there.
        stacks: the ids of the calls that led to the socket, for each service: each call begins with them.
        received: the opening handshake.
        subscriptions: pairs of a service's name and a channel.
    """

    def __init__(self, sockets: Sockets, received: Received, contexts: dict[Any, Any]) -> None:
        self.sockets = sockets
        self.received = received
        self.socket_id = str(uuid.uuid4())
        self.contexts = contexts
        self.stacks = {server: data.pop(STACK) for server, data in contexts.items() if STACK in data}
        self.subscriptions: set[tuple[str, str]] = set()
        self.waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.handling = 0  # bytes of the current one
        self.later: Callable[[], Any] | None = None  # begins its worker, when one has ended
        self.paused = self.busy = self.looping = False
        self.socket: Any = None

    def receive(self, message: bytes) -> None:
        if self.sockets.stopped:
            return
        self.waiting.append(message)
        self.waiting_bytes += len(message)
        if not (self.paused or self.has_room()):
            self.paused = True
            self.socket.pause()
        self.handle_waiting()

    def wait(self, workers: Turns, provider: Entrypoint, begin: Callable[[], Any]) -> None:
        """Begin a worker when another one has ended, unless the client has left by then."""
        self.later = begin
        workers.wait(provider, self.begin)

    def begin(self) -> None:
        begin, self.later = self.later, None
        if begin is not None:
            begin()

    def gone(self) -> None:
        self.waiting.clear()
        self.later = None
        self.sockets.connections.gone(self)

    def has_room(self) -> bool:
        return len(self.waiting) <= WAITING_MAX and self.waiting_bytes <= WAITING_BYTES_MAX

    def handle_waiting(self) -> None:
        """Handle requests until one of them waits for its method."""
        # a loop and not a recursion: a method that does not wait has answered when `handle` returns
        if self.looping:
            return
        self.looping = True
        while self.waiting and not self.busy and self.socket.open and not self.sockets.stopped:
            self.busy = True
            message = self.waiting.popleft()
            self.handling = len(message)
            self.waiting_bytes -= self.handling
            self.handle(message)
        self.looping = False
        if self.paused and self.has_room():
            self.paused = False
            self.socket.resume()

    def handle(self, message: bytes) -> None:
        if len(message) > HERE_MAX:
            reading = in_background(request_of, message, self.sockets.values_max)
            reading.addCallbacks(self.call, lambda failure: self.answer(None, None, failure.value))
            return
        try:
            request = request_of(message, self.sockets.values_max)
        except MalformedRequest as error:
            self.answer(None, None, error)
        else:
            self.call(request)

    def call(self, request: tuple[str, dict[str, Any], Any]) -> None:
        method, data, correlation_id = request
        try:
            provider = self.sockets.methods.get(method)
            if provider is None:
                raise MethodNotFound()
            if provider.stopped:
                raise ContainerBeingKilled()
            provider.handle_message(self, data, partial(self.answer, correlation_id))
        except ContainerBeingKilled:
            self.socket.close(CloseReason.GOING_AWAY, "the service has stopped")
        except BaseException as error:
            self.answer(correlation_id, None, error)

    def answer(self, correlation_id: Any, result: Any, error: BaseException | None) -> None:
        """Send the outcome of the current request, and handle the next one."""
        message = {"type": "result", "correlation_id": correlation_id}
        text = ""
        if error is None:
            try:
                text = written({**message, "success": True, "data": result})
            except BaseException as raised:  # a mapping in the result may raise anything
                log.error("a result for socket {id} can't be JSON: {error}", id=self.socket_id, error=shown(raised))
                error = UnserializableValueError(result)
        if error is not None:
            text = written({**message, "success": False, "error": serialize(error)})
        self.socket.handled(self.handling)
        self.socket.send(text)
        self.busy = False
        self.handle_waiting()

    def handle_result(self, answer: Answer, worker: WorkerContext, result: Any, exc_info: ExcInfo | None) -> Any:
        answer(result, None if exc_info is None else exc_info[1])
        return result, exc_info

    def send_event(self, event: str, data: Any) -> None:
        self.socket.send(written({"type": "event", "event": event, "data": data}))


def request_of(message: bytes, values_max: int) -> tuple[str, dict[str, Any], Any]:
    """Method, data and correlation id of a request. May raise ``MalformedRequest``."""
    try:
        text = message.decode()
        short = len(message) <= HERE_MAX or is_quick(message)
        request = json.loads(text) if short else JsonReader(text, values_max).read_all()
        method, data, correlation_id = request["method"], request.get("data") or {}, request.get("correlation_id")
        if not isinstance(method, str) or not isinstance(data, dict):
            raise TypeError
        written(correlation_id)  # the answer has it, too: no NaN, and nothing too deep
        return method, data, correlation_id
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise MalformedRequest("Invalid JSON data") from None
