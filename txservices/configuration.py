"""The configuration's keys, a row for each: its name, default and unit, which values it takes, and what it is for.

    timeout = configuration.RPC_TIMEOUT.of(config)

A config is checked once at the start, every key of it: ``check`` tells all mistakes in one ``ConfigurationError``, an
argument for each. The table in docs/configuration.md has the same rows, and a test compares them. The page is long
because it is a table: a key is added by adding a row. ``kinds`` says which values a key can take.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.logger import Logger

from txservices.exceptions import ConfigurationError
from txservices.kinds import (
    ACCESS_LOGS,
    FLAG,
    FORWARDED_HEADERS,
    HEARTBEAT_MAX,
    LOG_FORMATS,
    LOGIN_METHODS,
    NAME_MAX,
    ON_PARKED_WAYS,
    PREFETCH_MAX,
    QUEUE_TYPES,
    SERIALIZER_NAMES,
    TLS_OPTIONS,
    WEB_PLACE,
    Kind,
    are_converters,
    are_dotted,
    are_levels,
    are_networks,
    are_serializers,
    are_texts,
    are_users,
    are_web_places,
    is_breaker,
    is_broker,
    is_cors,
    is_dotted,
    is_number,
    is_retry,
    is_text,
    is_tls,
    one_of,
    seconds,
    shown,
    web_address,
    whole,
    words,
)
from txservices.utils.address import BROKER_ADDRESS, EXAMPLE, host_and_port

__all__ = ["KEYS", "Key", "check", "faults_of", "warn_of_unknown"]

log = Logger()

T = TypeVar("T")

NEAR = 0.85  # how alike an unknown key and one of ours are, with 1 for the same, before the log asks


@frozen
class Key(Generic[T]):
    """One key of the configuration.

    Attributes:
        default: the value if the config does not have the key.
        kind: which values it takes.
        use: what it is for; the table in docs/configuration.md has the same text.
        unit: of a number.
        null: what null stands for; the reader gets None then. If this is empty, null is as good as no key.
        without: the meaning of the default, if that is None.
        may_be_null: whether null is allowed at all.
    """

    name: str
    default: T
    kind: Kind
    use: str
    unit: str = ""
    null: str = ""
    without: str = ""
    may_be_null: bool = True

    def of(self, config: Mapping[str, Any]) -> T:
        """The value in a config, or the default. ``ConfigurationError`` for one that can't be."""
        faults = self.faults(config)
        if faults:
            raise ConfigurationError(*faults)
        value: T | None = config.get(self.name)
        if value is not None:
            return value
        return config[self.name] if self.null and self.name in config else self.default

    def faults(self, config: Mapping[str, Any]) -> Sequence[str]:
        """The faults of the value in a config, each in a line that also says what to write."""
        value = config.get(self.name)
        if value is None and (self.may_be_null or self.name not in config):
            return ()
        try:
            if self.kind.check(value):
                return ()
        except ConfigurationError as error:
            return error.args
        null = f", or null for {self.null}" if self.null else ""
        return (f"{self.name}: {shown(value)} is no {self.kind.noun}: write {self.kind.write}{null}",)


AMQP_URI: Key[str | list[str] | None] = Key(
    "AMQP_URI",
    None,
    Kind(is_broker, "address of a broker", f"{EXAMPLE}, or a list of such"),
    "`amqp://user:password@host:port/vhost`, each part percent-encoded; `amqps://` for TLS; `memory://NAME` for a"
    " broker inside this process. For a cluster write a list, or put `;` between the addresses. The key without a"
    " value is a mistake",
    without="the embedded broker",
    may_be_null=False,
)
EMBEDDED_BROKER_ADDRESS = Key(
    "EMBEDDED_BROKER_ADDRESS",
    "127.0.0.1:5672",
    Kind(
        lambda value: isinstance(value, str) and host_and_port(value, BROKER_ADDRESS) is not None,
        "address",
        "host:port, 127.0.0.1:5672",
    ),
    "where the embedded broker listens",
)
EMBEDDED_BROKER_USERS: Key[Mapping[str, str]] = Key(
    "EMBEDDED_BROKER_USERS",
    {"guest": "guest"},
    Kind(are_users, "mapping of user names to passwords", "name: password, both as text"),
    "who may come in to the embedded broker, `name: password`. The user guest may come in from this machine only",
)
WEB_SERVER_ADDRESS: Key[str | int | list[str | int]] = Key(
    "WEB_SERVER_ADDRESS",
    "127.0.0.1:8000",
    Kind(are_web_places, WEB_PLACE.noun, WEB_PLACE.write),
    "where HTTP listens. A port alone is on 127.0.0.1; port 0 is any free one. Also `[::1]:8000`, an endpoint of"
    " Twisted's such as `ssl:…` or `unix:…`, and a list of several: see [addresses](http.md#addresses)",
)
WEB_TRUSTED_PROXIES: Key[list[str]] = Key(
    "WEB_TRUSTED_PROXIES",
    [],
    Kind(are_networks, "list of networks", "[10.0.0.0/8, 127.0.0.1]"),
    "the networks of the proxies that say whom a request is from, and of those that speak the PROXY protocol; `unix`"
    " for those that come by a socket in the file system: see [behind a proxy](http.md#behind-a-proxy)",
)
WEB_FORWARDED_HEADER = Key(
    "WEB_FORWARDED_HEADER",
    "X-Forwarded",
    one_of("header", FORWARDED_HEADERS),
    "how these proxies say it: `X-Forwarded` for `X-Forwarded-For`, `-Proto` and `-Host`, or `Forwarded` (RFC 7239)",
)
WEB_HEALTH = Key(
    "WEB_HEALTH",
    False,
    FLAG,
    "whether `/healthz`, `/readyz` and `/metrics` are served beside the URLs of services, for everybody who may come"
    " there",
)
OPS_ADDRESS: Key[str | int | None] = Key(
    "OPS_ADDRESS",
    None,
    web_address("0.0.0.0:9100 or 9100"),
    "where `run` and twistd serve `/healthz`, `/readyz` and `/metrics`; `--ops` goes over it. A port alone is on"
    " 127.0.0.1; port 0 is any free one",
    without="off",
)
WEB_BODY_MAX = Key(
    "WEB_BODY_MAX",
    16 * 1024 * 1024,
    whole("one, as 16777216", noun="number of bytes"),
    "the longest body of a request, and the longest message of a WebSocket",
    unit="bytes",
)
WEB_BODY_RATE = Key(
    "WEB_BODY_RATE",
    250,
    whole("one, as 250, or 0 for no such limit", noun="number of bytes"),
    "how many bytes of a request's body must have come for each second, after its first 20 s. A slower client is"
    " disconnected. 0 for no such limit",
)
WEB_CONNECTIONS_MAX = Key(
    "WEB_CONNECTIONS_MAX",
    10_000,
    whole("one, as 10000"),
    "how many clients of HTTP may be connected, WebSockets included. Further ones are answered 503 and disconnected",
)
WEB_CONNECTIONS_PER_ADDRESS: Key[int | None] = Key(
    "WEB_CONNECTIONS_PER_ADDRESS",
    None,
    whole("one, as 100"),
    "the same for the clients at one address. Behind a proxy, which is the client of all, leave it out",
    without="no limit",
)
WEB_PROBLEM_DETAILS = Key(
    "WEB_PROBLEM_DETAILS",
    False,
    FLAG,
    "whether errors of HTTP are answered as JSON, as problem details (RFC 9457); else they are a line of text",
)
WEB_CORS: Key[Mapping[str, Any]] = Key(
    "WEB_CORS",
    {},
    Kind(is_cors, "mapping", 'origins: ["https://shop.example"]'),
    "which pages of other origins may use the URLs of HTTP: `origins`, and further `methods`, `headers`, `credentials`,"
    " `max_age` and `expose`, as for [`Cors`](http.md#pages-of-other-origins). `cors=` of an entrypoint goes over it",
)
WEB_COMPRESS_FROM: Key[int | None] = Key(
    "WEB_COMPRESS_FROM",
    None,
    whole("one, as 1024", noun="number of bytes"),
    "the length from which on a response of HTTP is compressed, if its client takes that. See [what it gives"
    " away](http.md#compression)",
    unit="bytes",
    without="off",
)
WEB_MAX_WORKERS = Key(
    "WEB_MAX_WORKERS",
    100,
    Kind(lambda value: is_number(value, int) and value >= 1, "whole number from 1", "one, as 100"),
    "how many requests of HTTP a service works on at a time, beside the workers of `max_workers`. Further ones wait for"
    " up to 10 s, and are then answered 503 with `Retry-After`",
)
WEB_ACCESS_LOG: Key[str | bool] = Key(
    "WEB_ACCESS_LOG",
    "off",
    Kind(lambda value: value is False or (isinstance(value, str) and value in ACCESS_LOGS), "form", words(ACCESS_LOGS)),
    "whether the log has a line for each request of HTTP: `combined` as Apache's, or `json`. Its logger is"
    " `txservices.web.accesslog`, which `LOGGING` may send elsewhere; see [the access log](http.md#the-access-log)",
)
WEB_CONVERTERS: Key[Mapping[str, str]] = Key(
    "WEB_CONVERTERS",
    {},
    Kind(are_converters, "mapping of names to dotted names", "date: package.module.DateConverter"),
    "converters for the variables of URLs, besides werkzeug's: with `date: shop.urls.DateConverter` a URL may have"
    " `<date:day>`. They are subclasses of `werkzeug.routing.BaseConverter`",
)
WEB_MIDDLEWARE: Key[list[str]] = Key(
    "WEB_MIDDLEWARE",
    [],
    Kind(are_dotted, "list of dotted names", "[package.module.function]"),
    "functions around every method that HTTP calls, the outermost first: see [middleware](http.md#middleware)",
)
WEB_SESSION_SECRET: Key[str | list[str] | None] = Key(
    "WEB_SESSION_SECRET",
    None,
    Kind(lambda value: is_text(value) or are_texts(value), "secret", "a text, or a list of such"),
    "signs the cookies of [sessions](http.md#sessions). Of a list the first signs, and what the others have signed is"
    " still taken",
    without="no sessions",
)
WEBSOCKET_ORIGINS: Key[list[str] | str | None] = Key(
    "WEBSOCKET_ORIGINS",
    None,
    Kind(
        lambda value: is_text(value) or are_texts(value), "list of origins", '["https://example.com"], or "*" for all'
    ),
    "a list of the origins whose pages may open WebSockets; `*` for all",
    without="pages of our own address",
)
WEBSOCKET_SUBPROTOCOLS: Key[list[str] | str | None] = Key(
    "WEBSOCKET_SUBPROTOCOLS",
    None,
    Kind(lambda value: is_text(value) or are_texts(value), "list of names", '["chat.v2", "chat"]'),
    "the names of subprotocols that WebSockets of this address agree to, the best one first: a client is told the"
    " first that it asks for",
    without="no subprotocol",
)
MAX_WORKERS = Key(
    "max_workers",
    10,
    whole("10"),
    "how many workers of a service run at a time. 0 is the default too, as in nameko",
)
PREFETCH_COUNT: Key[int | None] = Key(
    "prefetch_count",
    None,
    whole("50", PREFETCH_MAX),
    "how many messages are taken from a queue before they are acknowledged. 0 is the default too",
    without="`max_workers` and 40 more",
)
PREFETCHED_BYTES_MAX = Key(
    "PREFETCHED_BYTES_MAX",
    256 * 1024 * 1024,
    whole("one, as 268435456", noun="number of bytes"),
    "how many bytes of messages a service takes before they are acknowledged. Above it nothing more is read from the"
    " broker while a message waits for a worker; a single longer message is read",
    unit="bytes",
)
SHUTDOWN_TIMEOUT: Key[float | None] = Key(
    "SHUTDOWN_TIMEOUT",
    30.0,  # Kubernetes kills after 30 as well
    seconds("30"),
    "how long a stop waits for running workers. Messages whose workers did not finish go back to their queues",
    unit="s",
    null="no end",
)
WORKER_TIMEOUT: Key[float | None] = Key(
    "WORKER_TIMEOUT",
    None,
    seconds("300"),
    "how long a worker may take. Then it is cancelled, and its caller gets `WorkerTimeout`; one in a thread can't be"
    " cancelled, and the log names it. `worker_timeout=` of an entrypoint goes over it; 0 is for no limit",
    unit="s",
    without="no limit",
)
SLOW_WORKER: Key[float | None] = Key(
    "SLOW_WORKER",
    10.0,
    seconds("10"),
    "how long a worker may run before it is slow: then the log has a line when it ends, with the time that it ran and"
    " the time that it had waited for its turn. A method that holds the reactor is told of sooner",
    unit="s",
    null="no such line",
)
CANCEL_AT_DEADLINE = Key(
    "CANCEL_AT_DEADLINE",
    False,
    FLAG,
    "whether a worker that waits is cancelled when its caller's time is up, or when its caller cancels the call. One"
    " in a thread can't be. `cancel_at_deadline=` of an entrypoint goes over it",
)
BLOCKED_REACTOR_TIMEOUT: Key[float | None] = Key(
    "BLOCKED_REACTOR_TIMEOUT",
    1.0,
    seconds("1.0"),
    "how long a method may hold the reactor before the log names it, with its stack",
    unit="s",
    null="off",
)
BROKER_START_TIMEOUT: Key[float | None] = Key(
    "BROKER_START_TIMEOUT",
    None,
    seconds("30"),
    "how many seconds a start waits for a broker before it fails. 0 is for one attempt at each address",
    unit="s",
    null="no end",
    without="no end",
)
CONSUMER_TIMEOUT: Key[float | None] = Key(
    "CONSUMER_TIMEOUT",
    1800.0,  # RabbitMQ's own, unless it is told otherwise
    seconds("1800"),
    "the broker's own `consumer_timeout`. The log warns of a message that is not acknowledged for most of that time",
    unit="s",
    null="no warning",
)
RPC_TIMEOUT: Key[float | None] = Key(
    "RPC_TIMEOUT",
    60.0,
    seconds("60", above_zero=True),
    "how long a call waits for its reply",
    unit="s",
    null="no end",
)
RPC_PERSISTENT = Key(
    "RPC_PERSISTENT",
    True,
    FLAG,
    "whether requests and their replies survive a crash of the broker. If they need not, a call does not wait for the"
    " broker's disk; those under way at a crash end by their timeout. A proxy's `persistent=` goes over it",
)
PUBLISH_TIMEOUT: Key[float | None] = Key(
    "PUBLISH_TIMEOUT",
    30.0,
    seconds("30", above_zero=True),
    "how long a publish waits for the broker's confirm. A message that a method publishes and does not wait for is kept"
    " until it is confirmed",
    unit="s",
    null="no end",
)
HEARTBEAT: Key[int | None] = Key(
    "HEARTBEAT",
    60,
    whole("60", HEARTBEAT_MAX, "whole number of seconds"),
    "a connection that is silent for two such intervals is dropped; the broker may ask for a shorter one",
    unit="s",
    null="no heartbeats",
)
AMQP_SSL: Key[Mapping[str, Any] | bool | None] = Key(
    "AMQP_SSL",
    None,
    Kind(is_tls, "way to use TLS", f"true, or a mapping with {words(tuple(TLS_OPTIONS))}"),
    "true, or a mapping with `ca_certs`, `certfile` and `keyfile`, the paths of PEM files, and `password` of the key",
    without="TLS for `amqps://` only",
)
LOGIN_METHOD = Key(
    "LOGIN_METHOD",
    "PLAIN",
    one_of("login method", LOGIN_METHODS),
    "`PLAIN`, `AMQPLAIN`, or `EXTERNAL` where the client's certificate is the login",
)
SERIALIZER = Key(
    "serializer",
    "json",
    Kind(is_text, "name of a serializer", words(SERIALIZER_NAMES)),
    "the format that is written: `json`, `pickle`, `yaml`, `msgpack`, `raw`, or one of `SERIALIZERS`",
)
ACCEPT: Key[list[str] | None] = Key(
    "ACCEPT",
    None,
    Kind(are_texts, "list of serializers", '["json"]'),
    "a list of the formats that are read",
    without="the one of `serializer`",
)
SERIALIZERS: Key[Mapping[str, Any]] = Key(
    "SERIALIZERS",
    {},
    Kind(are_serializers, "mapping of names to serializers", "NAME: {encoder, decoder, content_type}"),
    "formats of your own, `name: {encoder, decoder, content_type, content_encoding}`, the first two as dotted names",
)
DECOMPRESSED_MAX = Key(
    "DECOMPRESSED_MAX",
    16 * 1024 * 1024,
    whole("one, as 16777216", noun="number of bytes"),
    "how long the body of a compressed message may be when it is decompressed; with 0 no such message is read",
    unit="bytes",
)
VALUES_MAX = Key(
    "VALUES_MAX",
    1_000_000,
    whole("one, as 1000000", noun="number of values"),
    "how many values a body over 256 KiB may have. A key counts as one, too, and a list or a mapping as five",
)
RPC_EXCHANGE = Key(
    "rpc_exchange",
    "nameko-rpc",
    Kind(
        lambda value: is_text(value) and len(value.encode()) <= NAME_MAX,
        f"name of up to {NAME_MAX} bytes",
        "nameko-rpc",
    ),
    "the exchange of calls and replies; a caller and its services have the same one",
)
AUTO_DELETE_EVENT_EXCHANGES = Key(
    "AUTO_DELETE_EVENT_EXCHANGES", False, FLAG, "whether an exchange of events is deleted with its last queue"
)
DECLARE_EVENT_EXCHANGES = Key(
    "DECLARE_EVENT_EXCHANGES", True, FLAG, "whether exchanges of events are declared; if not, they have to exist"
)
QUEUE_TYPE: Key[str | None] = Key(
    "QUEUE_TYPE",
    None,
    one_of("type of queue", QUEUE_TYPES),
    "`classic` or `quorum`, for the queues of calls, events and `consume`; see below",
    without="classic, as nameko declares them",
)
RETRY: Key[Mapping[str, Any] | None] = Key(
    "RETRY",
    None,
    Kind(is_retry, "mapping", "attempts, delay, …, or service.method: {attempts: 5}"),
    "which messages are tried again after their handler has failed: the arguments of `Retry` for all methods, and under"
    " `service.method` for one of them, or false there. `retry=` of an entrypoint goes over it",
    without="no retries",
)
CIRCUIT_BREAKER: Key[Mapping[str, Any] | None] = Key(
    "CIRCUIT_BREAKER",
    None,
    Kind(is_breaker, "mapping", "failures, window, minimum and open_for"),
    "when calls of a service fail at once, because too many have failed: the arguments of `CircuitBreaker`, and under"
    " `services` a mapping of names to others, or to false. A proxy's `breaker=` goes over it",
    without="off",
)
ON_PARKED = Key(
    "on_parked",
    "park",
    one_of("way to end", ON_PARKED_WAYS),
    "what becomes of a message after its last attempt: `park` keeps it in the queue `NAME.parked`, `drop` acknowledges"
    " it, `requeue` gives it back to its queue",
)
PARENT_CALLS_TRACKED = Key(
    "parent_calls_tracked",
    10,
    whole("10"),
    "how many ids of the calls that led to a worker go along with its own calls",
)
FLEET = Key(
    "FLEET",
    True,
    FLAG,
    "whether a process tells those who ask on its broker what it is, how its services do, and its latest failures:"
    " `txservices services`, `top` and the like, and the page. It says nothing unless it is asked",
)
SERVICE_CONTAINER_CLS: Key[str | None] = Key(
    "SERVICE_CONTAINER_CLS",
    None,
    Kind(is_dotted, "dotted name", "the dotted path of a class"),
    "the dotted name of a class that takes the place of `ServiceContainer`",
    without="`ServiceContainer`",
)
NAMEKO = Key(
    "NAMEKO",
    False,
    FLAG,
    "whether the services are nameko's, unchanged: what they import of nameko and eventlet is ours, a class that"
    " doesn't say `blocking` is blocking, and HTTP is served on `0.0.0.0:8000` if no address is given, as nameko does",
)
OBSERVERS: Key[list[str]] = Key(
    "OBSERVERS",
    [],
    Kind(are_dotted, "list of dotted names", "[package.module.Class]"),
    "a list of the dotted names of subclasses of `Observer`, which are told what happens in the process: see"
    " [observers](observers.md)",
)
TRACES = Key(
    "TRACES",
    False,
    FLAG,
    "whether spans of workers, calls and messages are made, for OpenTelemetry: see [tracing](tracing.md)",
)
LOG_FORMAT = Key(
    "LOG_FORMAT",
    "plain",
    one_of("form of the log", LOG_FORMATS),
    "how `run` and twistd write lines of the log on stdout: `json` for an object a line, see"
    " [operating](operating.md#logs). It can't be there together with `LOGGING`",
)
LOG_LEVELS: Key[Mapping[str, str]] = Key(
    "LOG_LEVELS",
    {},
    Kind(are_levels, "mapping of loggers to levels", "txservices.broker: debug"),
    "from which level on lines of a logger, and of those below it, are written, as `txservices.broker: debug`:"
    " debug, info, warn, error or critical. Without it info, and warn for `twisted`. It can't be there together with"
    " `LOGGING`",
)
LOGGING: Key[Mapping[str, Any]] = Key(
    "LOGGING",
    {},
    Kind(lambda value: isinstance(value, Mapping), "mapping", "one for logging.config.dictConfig"),
    "for `logging.config.dictConfig`. Loggers are named after our modules, as `txservices.amqp`; `%(call_id)s` in a"
    " format is the worker's call id, and `%(origin)s` that of the first call, which led to it. Without it the log is"
    " Twisted's, a line an event",
)

KEYS: dict[str, Key[Any]] = {each.name: each for each in list(globals().values()) if isinstance(each, Key)}

# All of them ------------------------------------------------------------------------------------------------


def check(config: Mapping[str, Any]) -> None:
    """``ConfigurationError`` for every value that can't be, a line for each."""
    faults = faults_of(config)
    if faults:
        raise ConfigurationError(*faults)


def faults_of(config: Mapping[str, Any]) -> list[str]:
    """A line for every value that can't be."""
    return [
        *(fault for key in KEYS.values() for fault in key.faults(config)),
        *unregistered(config),
        *logged_twice(config),
    ]


def unregistered(config: Mapping[str, Any]) -> Iterator[str]:
    """A line, in nameko's words, for each serializer that is asked for and is not there."""
    if SERIALIZERS.faults(config):
        return
    known = {*SERIALIZER_NAMES, *SERIALIZERS.of(config)}
    written = [] if SERIALIZER.faults(config) else [SERIALIZER.of(config)]
    read = [] if ACCEPT.faults(config) else ACCEPT.of(config) or ()
    for name in dict.fromkeys([*written, *read]):
        if name not in known:
            yield f'Please register a serializer for "{name}" format'


def logged_twice(config: Mapping[str, Any]) -> Iterator[str]:
    """A line for each key about the log that LOGGING has no use for."""
    if config.get(LOGGING.name):
        for key in (LOG_FORMAT, LOG_LEVELS):
            if config.get(key.name) is not None:
                yield f"{key.name}: LOGGING decides about the log: leave one of them out"


def warn_of_unknown(config: Mapping[str, Any]) -> None:
    """Log a line for each key that is not ours and looks like a mistyped one of ours.

    Services read keys of their own from the same config, so any other name is fine.
    """
    for name, meant in mistyped(config).items():
        log.warn("the configuration's {name!r} means nothing here: is {meant!r} meant?", name=name, meant=meant)


def mistyped(config: Mapping[str, Any]) -> dict[str, str]:
    """The unknown keys that are near to one of ours, whatever their case, each with that one."""
    plain = {name.lower(): name for name in KEYS}
    found: dict[str, str] = {}
    for name in config:
        if isinstance(name, str) and name not in KEYS:
            near = difflib.get_close_matches(name.lower().replace("-", "_"), plain, 1, NEAR)
            if near:
                found[name] = plain[near[0]]
    return found
