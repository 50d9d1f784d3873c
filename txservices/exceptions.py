"""All errors, and the form in which an error travels from a service to its caller.

    ConfigurationError                  a mistake of the user, found before anything runs
      CommandError                      a mistake on the command line
      NeedsAsyncio                      it awaits something of asyncio's, and another reactor runs
      BrokerRefused                     the broker refuses the credentials or the virtual host
      BrokerUnreachable                 no broker answered within BROKER_START_TIMEOUT
      DeclarationMismatch               an exchange or queue exists with other properties
        CantBeDeclared                  a ValueError, too: AMQP can't carry its name or its arguments
    AmqpError(code, text, method)       the connection to the broker failed
      ChannelClosedByBroker
        RefusedForNow                   what the broker may grant later: a queue that others declare, a limit
      ConnectionClosedByBroker
      ConnectionLost
      NotAnswered                       the broker leaves a request unanswered
      FrameError                        bytes that are not AMQP
      HandshakeFailed                   no broker of AMQP 0-9-1 answers at the address, or TLS fails
    PublishError                        a message could not be published
      PublishBufferFull                 too many messages wait for their confirm
      PublishFailed(exchange, routing_key)   what the others have in common
        UndeliverableMessage            it is mandatory, and no queue takes it
        PublishNacked  PublishTimeout
        HeadersTooLarge                 a ValueError, too: its headers are more than a frame may have
    EncodeError  DecodeError            a value can't be written, a body can't be read
    CallFailed                          a call has no result; its text names the call
      RpcTimeout(timeout)               no reply came in time
      RpcConnectionError                no reply can come any more
        ReplyQueueExpiredWithPendingReplies
      CircuitOpen                       too many calls of the service have failed, and this one was not sent
      UnknownService                    no queue takes calls of that service
      BadRequest                        a mistake of the caller
        MalformedRequest  MethodNotFound  IncorrectSignature  ConnectionNotFound
    RemoteError(exc_type, value)        the called method raised an error
    UnserializableValueError            the result of the called method can't be written
    NotAwaited                          a TypeError: the value of a call is read, and an ``await`` is missing
    WorkerTimeout                       a worker took too long, and was cancelled
      CallerGone                        its caller waits no more
    ContainerBeingKilled                the container takes no more work
    AlreadyHandled                      a message is a duplicate of one that was handled
    ExtensionNotFound                   an AttributeError: the service has no extension of that name

An error travels as ``{"exc_type", "exc_path", "exc_args", "value"}``. The errors that nameko has too travel with their
path in nameko, so that each side knows the errors of the other. ``AmqpError``, ``PublishError`` and their subclasses
stand in ``brokererrors``, ``CallFailed`` with its own and ``RemoteError`` in ``callerrors``. They are imported from
here, as all others are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from txservices import brokererrors, callerrors
from txservices.brokererrors import (
    AmqpError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionLost,
    FrameError,
    HandshakeFailed,
    HeadersTooLarge,
    NotAnswered,
    PublishBufferFull,
    PublishError,
    PublishFailed,
    PublishNacked,
    PublishTimeout,
    RefusedForNow,
    UndeliverableMessage,
)
from txservices.callerrors import (
    BadRequest,
    CallFailed,
    CircuitOpen,
    ConnectionNotFound,
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    ReplyQueueExpiredWithPendingReplies,
    RpcConnectionError,
    RpcTimeout,
    UnknownService,
)
from txservices.safe import (
    SAFE_CUT,
    SAFE_DEPTH_MAX,
    Safe,
    arguments_of,
    fits,
    module_of,
    name_of,
    safe_for_serialization,
)

__all__ = [
    "AlreadyHandled",
    "AmqpError",
    "BadRequest",
    "BrokerRefused",
    "BrokerUnreachable",
    "CallFailed",
    "CallerGone",
    "CantBeDeclared",
    "ChannelClosedByBroker",
    "CircuitOpen",
    "CommandError",
    "ConfigurationError",
    "ConnectionClosedByBroker",
    "ConnectionLost",
    "ConnectionNotFound",
    "ContainerBeingKilled",
    "DeclarationMismatch",
    "DecodeError",
    "EncodeError",
    "ExtensionNotFound",
    "FrameError",
    "HandshakeFailed",
    "HeadersTooLarge",
    "IncorrectSignature",
    "MalformedRequest",
    "MethodNotFound",
    "NeedsAsyncio",
    "NotAnswered",
    "NotAwaited",
    "PublishBufferFull",
    "PublishError",
    "PublishFailed",
    "PublishNacked",
    "PublishTimeout",
    "RefusedForNow",
    "RemoteError",
    "ReplyQueueExpiredWithPendingReplies",
    "RpcConnectionError",
    "RpcTimeout",
    "UndeliverableMessage",
    "UnknownService",
    "UnserializableValueError",
    "WorkerTimeout",
    "deserialize",
    "deserialize_to_instance",
    "get_module_path",
    "registry",
    "safe_for_serialization",
    "serialize",
]

E = TypeVar("E", bound=type[BaseException])

# An error bears the path of its class on the wire and in logs: let that be the path by which users import it.
for each in (*vars(brokererrors).values(), *vars(callerrors).values()):
    if isinstance(each, type) and issubclass(each, Exception):
        each.__module__ = __name__
del each


class ConfigurationError(Exception):
    """The user made a mistake. The text says which, and what to write instead. Each argument is one mistake."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class CommandError(ConfigurationError):
    """The user made a mistake on the command line, where the error's text is shown in one line."""


class NeedsAsyncio(ConfigurationError):
    """A method or an extension awaits something of asyncio's, and the reactor is another one."""


class NotAwaited(TypeError):
    """The value of a call is read, where only the Deferred of it is: an ``await`` is missing.

    Its text names the call, and the file and the line that read it.
    """

    def __init__(self, call: str, where: str, name: str = "") -> None:
        of = f".{name}" if name else ""
        super().__init__(
            f"the value of {call}(){of} is read before it is there ({where}): write `await` before the call, or set"
            " `blocking = True` on the class"
        )


class BrokerRefused(ConfigurationError):
    """The broker refuses our credentials or virtual host, or this client can't talk to it."""


class BrokerUnreachable(ConfigurationError):
    """No broker answered within BROKER_START_TIMEOUT."""


class DeclarationMismatch(ConfigurationError):
    """An exchange or queue exists on the broker with other properties than declared here, or can't have these."""


class CantBeDeclared(DeclarationMismatch, ValueError):
    """An exchange or queue has a name or an argument that AMQP can't carry, or a consumer of it has."""


class EncodeError(Exception):
    """The serializer can't write a value."""


class DecodeError(Exception):
    """A message's body can't be read, or its content type is not accepted here."""


class UnserializableValueError(Exception):
    """The serializer can't write the result of a method."""

    def __init__(self, value: Any) -> None:
        try:  # looked at first: the text of a result of 100 MB would hold the reactor
            self.repr_value = str.__str__(repr(value)) if fits(value) else f"{type(value).__name__} {SAFE_CUT}"
        except BaseException:  # a result's `__repr__` may raise anything, and the caller must be told
            self.repr_value = "[__repr__ failed]"
        super().__init__()  # without the value, which the serializer could not write as an argument either

    def __str__(self) -> str:
        return f"Unserializable value: `{self.repr_value}`"


class WorkerTimeout(Exception):
    """A worker took longer than ``WORKER_TIMEOUT``, or the ``worker_timeout`` of its entrypoint, and was cancelled."""


class CallerGone(WorkerTimeout):
    """A worker's caller has cancelled the call, or its HTTP client has left, and the worker was cancelled for that."""


class ContainerBeingKilled(Exception):
    """The container takes no more work. The message or request goes back to where it came from."""


class AlreadyHandled(Exception):
    """A message has been handled before: it is acked, and its method is not called. A ``OnceStore`` raises it."""

    def __str__(self) -> str:
        return f"the message {self.args[0]} has been handled before" if self.args else "it has been handled before"


class ExtensionNotFound(AttributeError):
    """The service has no extension of that name."""


# To and from the wire ---------------------------------------------------------------------------------------

NAMEKO_PATHS: dict[type[BaseException], str] = {
    **{
        error: f"nameko.exceptions.{error.__name__}"
        for error in (
            BadRequest,
            CommandError,
            ConfigurationError,
            ConnectionNotFound,
            ContainerBeingKilled,
            ExtensionNotFound,
            IncorrectSignature,
            MalformedRequest,
            MethodNotFound,
            RemoteError,
            ReplyQueueExpiredWithPendingReplies,
            RpcTimeout,
            UnknownService,
            UnserializableValueError,
        )
    },
    UndeliverableMessage: "nameko.amqp.publish.UndeliverableMessage",
}


def get_module_path(exc_type: type[BaseException]) -> str:
    """The path of an error's class on the wire: nameko's path if nameko has the same error, else our own."""
    module = module_of(exc_type)  # a metaclass may say anything else, and have a hash that raises
    known = next((path for error, path in NAMEKO_PATHS.items() if error is exc_type), None)
    return known or f"{module if isinstance(module, str) else 'builtins'}.{name_of(exc_type)}"


# path on the wire -> class, for errors that arrive as what they are and not as RemoteError
registry: dict[str, type[BaseException]] = {
    get_module_path(error): error for error in (MalformedRequest, MethodNotFound, IncorrectSignature)
}


def deserialize_to_instance(exc_type: E) -> E:
    """Class decorator: if a called service raises this error, the caller gets it, and not a ``RemoteError``."""
    registry[get_module_path(exc_type)] = exc_type
    return exc_type


deserialize_to_instance(WorkerTimeout)


def serialize(error: BaseException) -> dict[str, Any]:
    """The form in which an error travels, which ``deserialize`` reads. Never raises, whatever the error is like."""
    try:
        arguments = error.args
        if issubclass(type(error), BadRequest) and error.call:  # type: ignore[attr-defined]  # it is one
            # of a call that our method has made: its caller has called another
            arguments = (safe_for_serialization(error),)
    except BaseException:  # it may be a property, and raise anything
        arguments = ()
    if not issubclass(type(arguments), tuple):  # the class uses the name `args` for something else
        arguments = arguments_of(error)
    safe_arguments = Safe().sequence(tuple.__iter__(arguments), SAFE_DEPTH_MAX)
    return {
        "exc_type": name_of(type(error)),
        "exc_path": get_module_path(type(error)),
        "exc_args": safe_arguments,
        "value": safe_for_serialization(error),
    }


def deserialize(data: Any) -> BaseException:
    """The error in a reply: of its own class if that is registered here, else a ``RemoteError``.

    Never raises: data that is not an error, or does not fit its class, gives a ``RemoteError``.
    """
    if not isinstance(data, Mapping):
        return RemoteError(value=safe_for_serialization(data))
    path, arguments = data.get("exc_path"), data.get("exc_args") or ()
    exc_type = registry.get(path) if isinstance(path, str) else None
    if exc_type is not None:
        try:
            return exc_type(*arguments)
        except Exception:  # here the class takes other arguments than in the service
            pass
    return RemoteError(data.get("exc_type"), data.get("value"))
