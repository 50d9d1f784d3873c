"""All errors, and how one gets from the service where it was raised to its caller.

    ConfigurationError                  the user's to mend, before anything runs
      CommandError                      typed on a command line
      BrokerRefused                     credentials or virtual host
      BrokerUnreachable                 nobody there, where that is not waited for
      DeclarationMismatch               an exchange or queue exists with other properties
    AmqpError(code, text, method)       the connection to the broker
      ChannelClosedByBroker
      ConnectionClosedByBroker
      ConnectionLost
      FrameError                        bytes that are not AMQP
    PublishError                        one message did not get out
      UndeliverableMessage              mandatory, and no queue takes it
      PublishNacked  PublishTimeout  PublishBufferFull
    EncodeError  DecodeError            a value that can't be written, a body that can't be read
    RpcTimeout(timeout)                 no reply in time
    RpcConnectionError                  no reply any more
      ReplyQueueExpiredWithPendingReplies
    RemoteError(exc_type, value)        the method raised, on the other side
    UnknownService  UnserializableValueError
    BadRequest                          the caller's fault
      MalformedRequest  MethodNotFound  IncorrectSignature  ConnectionNotFound
    ContainerBeingKilled                no more workers here
    ExtensionNotFound

An error travels as ``{"exc_type", "exc_path", "exc_args", "value"}``; nameko's own have their
nameko path there, so that both sides know each other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

E = TypeVar("E", bound=type[BaseException])

# How much of an error goes onto the wire. What is beyond is left out, with SAFE_CUT in its place: an error may hold
# anything, a body of 100 MB or a structure without an end, and making it safe must not hold the reactor.
SAFE_DEPTH_MAX = 20  # containers inside each other in one argument
SAFE_NODES_MAX = 10_000  # values in all arguments together
SAFE_TEXT_MAX = 1_048_576  # characters of all texts of the arguments together, and of the error's own text
SAFE_CUT = "[…]"
SHOWING_ARGUMENTS = (BaseException.__str__, KeyError.__str__)  # an error without a `__str__` of its own
SAFE_FAILED = "[__unicode__ failed]"  # nameko's words, which callers may look for


class ConfigurationError(Exception):
    """What the user wrote can't be: says what, and what to write. Several mistakes are an argument each."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class CommandError(ConfigurationError):
    """What was typed on a command line can't be: its text is all that the user is shown."""


class BrokerRefused(ConfigurationError):
    """The broker refuses our credentials or virtual host."""


class BrokerUnreachable(ConfigurationError):
    """No broker answered within BROKER_START_TIMEOUT."""


class DeclarationMismatch(ConfigurationError):
    """An exchange or queue exists on the broker with other properties than those declared here, or can't have them."""


class AmqpError(Exception):
    """Something went wrong between us and the broker.

    Attributes:
        code: AMQP's reply code, 0 where there is none.
        text: what the one who found it said.
        method: the AMQP method that it was about, as ``basic.publish``, if it was about one.
    """

    def __init__(self, code: int, text: str, method: str | None = None) -> None:
        super().__init__(code, text, method)
        self.code = code
        self.text = text
        self.method = method

    def __str__(self) -> str:
        about = f", about {self.method}" if self.method else ""
        return f"{self.text} (code {int(self.code)}{about})" if self.code else self.text


class ChannelClosedByBroker(AmqpError):
    """The broker closed one channel; the connection lives."""


class ConnectionClosedByBroker(AmqpError):
    """The broker closed the connection, and said why."""


class ConnectionLost(AmqpError):
    """The connection is gone without a word from the broker, or was given up here."""

    def __init__(self, text: str) -> None:
        super().__init__(0, text)


class FrameError(AmqpError):
    """Bytes that are not AMQP 0-9-1, with the reply code that says in which way."""


class PublishError(Exception):
    """A message did not reach the broker, or the broker did not take it."""


class UndeliverableMessage(PublishError):
    """A mandatory message that no queue takes."""

    def __init__(self, exchange: str, routing_key: str, code: int, text: str) -> None:
        super().__init__(exchange, routing_key, code, text)
        self.exchange = exchange
        self.routing_key = routing_key
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return (
            f"no queue takes messages to exchange {self.exchange!r} with routing key {self.routing_key!r}"
            f" ({self.text}): is the consumer running, and bound to that key?"
        )


class PublishNacked(PublishError):
    """The broker took the message and then could not keep it."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        super().__init__(exchange, routing_key)
        self.exchange = exchange
        self.routing_key = routing_key

    def __str__(self) -> str:
        return (
            f"the broker refused a message to exchange {self.exchange!r} with routing key"
            f" {self.routing_key!r}: a queue is full, or its node has a fault (the broker's log says which)"
        )


class PublishTimeout(PublishError):
    """The broker did not confirm in time: it is away, or takes none for now. It may have the message."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        super().__init__(exchange, routing_key)
        self.exchange = exchange
        self.routing_key = routing_key

    def __str__(self) -> str:
        return (
            f"no confirm for a message to exchange {self.exchange!r} with routing key {self.routing_key!r}:"
            " is the broker there, and free of memory and disk alarms?"
        )


class PublishBufferFull(PublishError):
    """More waits for the broker's confirm than this process keeps."""

    def __init__(self, messages: int, size: int) -> None:
        super().__init__(messages, size)
        self.messages = messages
        self.size = size

    def __str__(self) -> str:
        return f"{self.messages} messages ({self.size} bytes) wait for a confirm: publish more slowly"


class EncodeError(Exception):
    """A value that the serializer can't write."""


class DecodeError(Exception):
    """A body that is not accepted here, or can't be read."""


class RpcTimeout(Exception):
    """No reply came in time. The method may have run."""

    def __init__(self, timeout: float | None = None) -> None:
        super().__init__(*(() if timeout is None else (timeout,)))
        self.timeout = timeout

    def __str__(self) -> str:
        return "no reply in time" if self.timeout is None else f"no reply within {self.timeout:g} s"


class RpcConnectionError(Exception):
    """A reply can't come any more. The method may have run."""


class ReplyQueueExpiredWithPendingReplies(RpcConnectionError):
    """We were away from the broker for so long that our reply queue expired, and the replies with it."""


class RemoteError(Exception):
    """The method called raised an exception: its type's name, and its text."""

    def __init__(self, exc_type: str | None = None, value: Any = "") -> None:
        super().__init__(f"{exc_type} {value}")
        self.exc_type = exc_type
        self.value = value


class UnknownService(Exception):
    """No queue takes calls to that service: it has never run on this broker."""

    def __init__(self, service_name: str) -> None:
        super().__init__(service_name)
        self._service_name = service_name

    def __str__(self) -> str:
        return f"Unknown service `{self._service_name}`"


class UnserializableValueError(Exception):
    """A method's result that the serializer can't write."""

    def __init__(self, value: Any) -> None:
        safe = Safe()
        safe.value(value)  # looked at first: the text of a result of 100 MB would hold the reactor
        try:
            self.repr_value = f"{type(value).__name__} {SAFE_CUT}" if safe.full else repr(value)
        except BaseException:  # a result's `__repr__` may raise anything, and the caller must be told
            self.repr_value = "[__repr__ failed]"
        super().__init__()  # without arguments, which would be as unserializable

    def __str__(self) -> str:
        return f"Unserializable value: `{self.repr_value}`"


class BadRequest(Exception):
    """The caller's fault, not the service's."""


class MalformedRequest(BadRequest):
    """The request has not the shape of one."""


class MethodNotFound(BadRequest):
    """The service has no such method."""


class IncorrectSignature(BadRequest):
    """The method does not take these arguments."""


class ConnectionNotFound(BadRequest):
    """The WebSocket is not connected, or not any more."""


class ContainerBeingKilled(Exception):
    """The container takes no more work: what was to be done goes back to where it came from."""


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
    """An exception class by its name on the wire: module and name, or nameko's for what nameko has too."""
    return NAMEKO_PATHS.get(exc_type) or f"{exc_type.__module__}.{exc_type.__name__}"


# What arrives as itself and not as RemoteError: path on the wire -> class.
registry: dict[str, type[BaseException]] = {
    get_module_path(error): error for error in (MalformedRequest, MethodNotFound, IncorrectSignature)
}


def deserialize_to_instance(exc_type: E) -> E:
    """Class decorator: an error of this class, raised by a service called, is raised here as itself."""
    registry[get_module_path(exc_type)] = exc_type
    return exc_type


class Safe:
    """Makes values safe for the wire until so many of them, or so many characters, have been taken."""

    def __init__(self) -> None:
        self.nodes = SAFE_NODES_MAX
        self.characters = SAFE_TEXT_MAX

    def value(self, value: Any, depth: int = SAFE_DEPTH_MAX) -> Any:
        """The value in what every serializer can write: text, and dicts and lists of it. Never raises."""
        self.nodes -= 1
        try:
            if isinstance(value, str):
                return self.text(value)
            if isinstance(value, (dict, list, tuple, set, frozenset)):
                if depth == 0 or self.nodes <= 0:
                    return SAFE_CUT
                if isinstance(value, dict):
                    return self.mapping(value, depth - 1)
                return self.sequence(value, depth - 1)
            if isinstance(value, (bytes, bytearray, memoryview)):
                value = bytes(value[: self.characters])  # its text has a character for each byte at the least
            return self.text(str(value))
        except BaseException:  # SystemExit too: a `__str__` may raise anything, and an error must get to its caller
            return SAFE_FAILED

    @property
    def full(self) -> bool:
        """Whether something had to be left out, or would be next."""
        return self.nodes <= 0 or self.characters <= 0

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        safe = {}
        for key, each in dict.items(value):
            if self.nodes <= 0:
                safe[SAFE_CUT] = SAFE_CUT
                break
            safe[str(self.value(key, depth))] = self.value(each, depth)
        return safe

    def sequence(self, value: Iterable[Any], depth: int) -> list[Any]:
        safe = []
        for each in value:
            if self.nodes <= 0:
                safe.append(SAFE_CUT)
                break
            safe.append(self.value(each, depth))
        return safe

    def text(self, text: str) -> str:
        if len(text) <= self.characters:
            self.characters -= len(text)
            return text
        cut = text[: self.characters] + SAFE_CUT
        self.characters = 0
        return cut


def safe_for_serialization(value: Any) -> Any:
    """The value in what every serializer can write: text, and dicts and lists of it. Never raises.

    Dicts, lists, tuples and sets are walked, down to ``SAFE_DEPTH_MAX`` and up to ``SAFE_NODES_MAX`` values. Whatever
    else is the text that ``str`` makes of it. There are ``SAFE_TEXT_MAX`` characters at most.
    """
    return Safe().value(value)


def serialize(error: BaseException) -> dict[str, Any]:
    """An error for the wire; ``deserialize`` is its way back. Never raises, whatever the error's class is like."""
    kind = type(error)
    try:
        name, path, arguments = str(kind.__name__), get_module_path(kind), error.args
    except BaseException:  # a class and its class may have properties of these names, which may raise anything
        name, path, arguments = SAFE_FAILED, f"builtins.{SAFE_FAILED}", ()
    if not isinstance(arguments, tuple):  # a class has an `args` of its own, for something else
        arguments = BaseException.args.__get__(error)  # the error's, as Python has it
    safe = Safe()
    safe_arguments = safe.sequence(arguments, SAFE_DEPTH_MAX)
    if safe.full and kind.__str__ in SHOWING_ARGUMENTS and not (len(arguments) == 1 and isinstance(arguments[0], str)):
        text = f"{name} {SAFE_CUT}"  # Python would make a text of all of them
    else:
        text = safe_for_serialization(error)
    return {"exc_type": name, "exc_path": path, "exc_args": safe_arguments, "value": text}


def deserialize(data: Any) -> BaseException:
    """The error that a reply carries: as itself if its class is registered here, else as a ``RemoteError``.

    Never raises: whatever came in place of an error, or does not fit its class, is a RemoteError too.
    """
    if not isinstance(data, Mapping):
        return RemoteError(value=safe_for_serialization(data))
    path, arguments = data.get("exc_path"), data.get("exc_args") or ()
    exc_type = registry.get(path) if isinstance(path, str) else None
    if exc_type is not None:
        try:
            return exc_type(*arguments)
        except Exception:  # the class takes other arguments here than there
            pass
    return RemoteError(data.get("exc_type"), data.get("value"))
