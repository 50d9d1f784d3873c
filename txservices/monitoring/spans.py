"""The content of a worker's span: its kind, name and attributes, by OpenTelemetry's semantic conventions.

There is a ``Shape`` for each entrypoint, made once. Attributes that only a recorded span needs are worked out at its
end.
"""

from __future__ import annotations

from collections.abc import Mapping
from traceback import format_tb
from typing import Any

from opentelemetry.trace import Span, SpanKind, StatusCode

from txservices.exceptions import RemoteError
from txservices.extensions import Entrypoint, WorkerContext
from txservices.monitoring.w3c import KEYS
from txservices.observers import CANCELLED, EXPECTED, OK
from txservices.safe import module_of, name_of, safe_for_serialization, traceback_of
from txservices.utils.printable import printable
from txservices.utils.secrets import hide

# attributes that OpenTelemetry has no name for
CALL_ID, WAITED, ATTEMPT, OUTCOME = (f"txservices.{name}" for name in ("call_id", "waited", "attempt", "outcome"))
SYSTEM = "nameko"  # what is spoken, whatever program is at the other end
STACK_MAX = 50  # calls of an error's stack, the innermost


class Shape:
    """The spans of one entrypoint's workers.

    This is for entrypoints of other people's, and for timers. Their span has a parent if the context data names one.
    """

    kind = SpanKind.INTERNAL
    links = False  # whether the span has a link to its parent, too
    in_data = True  # whether the parent and the baggage are in the worker's context data

    def __init__(self, entrypoint: Entrypoint) -> None:
        container = entrypoint.container
        self.name = f"{container.service_name}.{entrypoint.method_name}"
        cls = container.service_cls
        self.attributes: dict[str, Any] = {
            "code.function.name": f"{cls.__module__}.{cls.__qualname__}.{entrypoint.method_name}"
        }

    def carrier(self, worker: WorkerContext) -> Mapping[str, Any]:
        """Where the parent and the baggage are, if they are not in the context data."""
        return {}

    def begins(self, worker: WorkerContext) -> tuple[str, dict[str, Any]]:
        """Name and attributes, for the sampler, too."""
        return self.name, {**self.attributes, CALL_ID: worker.call_id}

    def further(self, worker: WorkerContext) -> dict[str, Any]:
        """Attributes of a span that is recorded."""
        return {}

    def fault(self, worker: WorkerContext, outcome: str, error: BaseException | None) -> str | None:
        """The type of the error if the worker has failed. An error that its caller has made does not count."""
        if outcome in (OK, EXPECTED, CANCELLED):
            return None
        return "_OTHER" if error is None else type_of(error)

    def end(self, span: Span, worker: WorkerContext, outcome: str, waited: float, error: BaseException | None) -> None:
        """Say in a recorded span how its worker has ended."""
        attributes = self.further(worker)
        if waited:
            attributes[WAITED] = waited
        if outcome != OK:
            attributes[OUTCOME] = outcome
        fault = self.fault(worker, outcome, error)
        if fault is not None:
            attributes["error.type"] = fault
            span.set_status(StatusCode.ERROR, None if error is None else text_of(error))
            if error is not None:
                span.add_event("exception", {**exception(error), "exception.stacktrace": stacktrace(error)})
        if attributes:
            span.set_attributes(attributes)
        span.end()


class OfRpc(Shape):
    kind = SpanKind.SERVER

    def __init__(self, entrypoint: Entrypoint) -> None:
        super().__init__(entrypoint)
        self.attributes.update(rpc(self.name))

    def end(self, span: Span, worker: WorkerContext, outcome: str, waited: float, error: BaseException | None) -> None:
        if error is not None:  # the reply says this, also where it is no fault of ours
            span.set_attribute("rpc.response.status_code", name_of(type(error)))
        super().end(span, worker, outcome, waited, error)


class OfWebSocket(OfRpc):
    """Each call of a socket is a child of whatever opened it, and not of the call before, though they share a context.

    Its worker's ``handle_result`` is a method of the connection.
    """

    in_data = False

    def __init__(self, entrypoint: Entrypoint) -> None:
        super().__init__(entrypoint)
        self.attributes["rpc.system.name"] = "websocket"

    def carrier(self, worker: WorkerContext) -> Mapping[str, Any]:
        bound = getattr(worker.handle_result, "func", None)  # a test may run the worker without a socket
        connection = getattr(bound, "__self__", None)
        return {} if connection is None else carrier_in(connection.received.requestHeaders)


class OfHttp(Shape):
    """The worker of a request answers a ``web.handlers.Call``: its ``handle_result`` is bound to that."""

    kind = SpanKind.SERVER
    in_data = False

    def __init__(self, entrypoint: Any) -> None:
        super().__init__(entrypoint)
        self.route = entrypoint.get_url_rule().rule
        self.attributes["http.route"] = self.route

    def carrier(self, worker: WorkerContext) -> Mapping[str, Any]:
        return carrier_in(call_of(worker).request.received.requestHeaders)

    def begins(self, worker: WorkerContext) -> tuple[str, dict[str, Any]]:
        request = call_of(worker).request
        attributes = {
            **self.attributes,
            "http.request.method": request.method,
            "url.path": request.path,
            "url.scheme": request.scheme,
            CALL_ID: worker.call_id,
        }
        return f"{request.method} {self.route}", attributes

    def further(self, worker: WorkerContext) -> dict[str, Any]:
        call = call_of(worker)
        attributes: dict[str, Any] = {}
        if call.request.remote_addr is not None:
            attributes["client.address"] = call.request.remote_addr
        if call.status is not None:
            attributes["http.response.status_code"] = call.status
        agents = call.request.received.requestHeaders.getRawHeaders(b"user-agent")
        if agents:
            attributes["user_agent.original"] = clean(agents[0].decode("latin-1"))
        return attributes

    def fault(self, worker: WorkerContext, outcome: str, error: BaseException | None) -> str | None:
        status = call_of(worker).status
        if status is None:
            return super().fault(worker, outcome, error)
        if status < 500:
            return None
        return str(status) if error is None else type_of(error)


PROPERTIES = (("message_id", "messaging.message.id"), ("correlation_id", "messaging.message.conversation_id"))


class OfMessage(Shape):
    """A message's span is a child of the one that has published it, and has a link to that, too."""

    kind = SpanKind.CONSUMER
    links = True

    def __init__(self, entrypoint: Any) -> None:
        super().__init__(entrypoint)
        queue = entrypoint.queue
        exchange = "" if queue.exchange is None else queue.exchange.name
        # as declared: a routing key that comes with a message may be any, and a broadcast's queue is another each time
        to = destination(exchange, queue.routing_key, queue.name and entrypoint.parked_as)
        self.name = f"process {to}"
        self.attributes.update({**messaging("process", "process"), "messaging.destination.name": to})
        self.queue = queue.name

    def further(self, worker: WorkerContext) -> dict[str, Any]:
        message = worker.message
        if message is None:
            return {}
        attributes = {
            "messaging.destination.name": destination(message.exchange, message.routing_key, self.queue),
            "messaging.rabbitmq.destination.routing_key": message.routing_key,
            "messaging.rabbitmq.message.delivery_tag": message.delivery_tag,
        }
        for name, key in (
            ("message_id", "messaging.message.id"),
            ("correlation_id", "messaging.message.conversation_id"),
        ):
            value = message.properties.get(name)
            if isinstance(value, str):
                attributes[key] = value
        if worker.attempt > 1:
            attributes[ATTEMPT] = worker.attempt
        return attributes


# Ours, by the classes that the entrypoints are of, or are subclasses of.
SHAPES: Mapping[str, type[Shape]] = {
    "txservices.rpc.Rpc": OfRpc,
    "txservices.web.websocket.WebSocketRpc": OfWebSocket,
    "txservices.web.handlers.HttpRequestHandler": OfHttp,
    "txservices.messaging.Consumer": OfMessage,
}


def shape_of(entrypoint: Entrypoint) -> Shape:
    for cls in type(entrypoint).__mro__:
        shape = SHAPES.get(f"{cls.__module__}.{cls.__qualname__}")
        if shape is not None:
            return shape(entrypoint)
    return Shape(entrypoint)


def carrier_in(headers: Any) -> dict[str, str]:
    """What the headers of a request say of its trace."""
    found = {}
    for name in KEYS:
        values = headers.getRawHeaders(name.encode())
        if values is not None:
            found[name] = b",".join(values).decode("latin-1")  # two of traceparent are as bad as a wrong one
    return found


def rpc(name: str) -> dict[str, Any]:
    """The attributes of a call of ``service.method``."""
    return {"rpc.system.name": SYSTEM, "rpc.method": name}


def asking(call: Any) -> dict[str, Any]:
    """The attributes of an ``httpclient.HttpCall``."""
    return {
        "http.request.method": call.method,
        "url.full": call.url,
        "server.address": call.host,
        "server.port": call.port,
    }


def answered(span: Span, status: int) -> None:
    """Say in a recorded span what the server has answered. From 400 on it is the caller's error."""
    span.set_attribute("http.response.status_code", status)
    if status >= 400:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def messaging(operation: str, kind: str) -> dict[str, Any]:
    return {"messaging.system": "rabbitmq", "messaging.operation.name": operation, "messaging.operation.type": kind}


def publishing(to: str, routing_key: str) -> dict[str, Any]:
    """The attributes of a message that is published."""
    attributes = {**messaging("publish", "send"), "messaging.destination.name": to}
    if routing_key:
        attributes["messaging.rabbitmq.destination.routing_key"] = routing_key
    return attributes


def destination(*parts: str | None) -> str:
    """Exchange, routing key and queue, as the conventions for RabbitMQ write them: each that there is, once."""
    return ":".join(dict.fromkeys(filter(None, parts))) or "amq.default"


# Errors ---------------------------------------------------------------------------------------------------------------


def end(span: Span, outcome: str, error: BaseException | None) -> None:
    """Say in a recorded span how a call or a message has ended. One that its sender has cancelled is no error."""
    if outcome == CANCELLED:
        span.set_attribute(OUTCOME, outcome)
    elif error is not None:
        kind = type_of(error)
        if isinstance(error, RemoteError) and isinstance(error.exc_type, str):
            kind = clean(error.exc_type)
            span.set_attribute("rpc.response.status_code", kind)
        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR, text_of(error))
        span.add_event("exception", exception(error))
    span.end()


def clean(text: str) -> str:
    """A text as it may leave this process: cut, without what no program shows, and without secrets."""
    return hide(printable(text))


def type_of(error: BaseException) -> str:
    kind = type(error)
    module = module_of(kind)
    return name_of(kind) if module == "builtins" else f"{module}.{name_of(kind)}"


def text_of(error: BaseException) -> str:
    return clean(str(safe_for_serialization(error)))


def exception(error: BaseException) -> dict[str, Any]:
    """The attributes of the event that tells of an error."""
    return {"exception.type": type_of(error), "exception.message": text_of(error)}


def stacktrace(error: BaseException) -> str:
    """The error as Python would print it."""
    calls = format_tb(traceback_of(error), -STACK_MAX)
    return clean("".join(["Traceback (most recent call last):\n", *calls, f"{type_of(error)}: {text_of(error)}"]))


def call_of(worker: WorkerContext) -> Any:
    """The HTTP call that a worker answers."""
    return worker.handle_result.__self__  # type: ignore[union-attr]  # a method of the call, for each HTTP entrypoint
