"""Kinds of values that keys of the configuration take, and the functions that tell whether a value is of a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from os import PathLike
from typing import Any, TypeGuard

from attrs import frozen

from txservices.exceptions import ConfigurationError
from txservices.utils import sanitize_url
from txservices.utils.address import ENDPOINTS, WEB_ADDRESS, host_and_port, parse_addresses

SECONDS_MAX = 2_147_483  # seconds, 24 days: epoll, which the reactor hands its next timer to, takes no more
PREFETCH_MAX = 65_535  # messages: AMQP has 16 bits for it
HEARTBEAT_MAX = 65_535  # seconds, for the same reason
NAME_MAX = 255  # bytes of an exchange's name: AMQP has one byte for its length
SHOWN_MAX = 80  # characters of a wrong value that are repeated

LOGIN_METHODS = ("PLAIN", "AMQPLAIN", "EXTERNAL")
ON_PARKED_WAYS = ("park", "drop", "requeue")
QUEUE_TYPES = ("classic", "quorum")
SERIALIZER_NAMES = ("json", "pickle", "yaml", "msgpack", "raw")  # those that need no entry in SERIALIZERS
LOG_FORMATS = ("plain", "json")
FORWARDED_HEADERS = ("X-Forwarded", "Forwarded")
ACCESS_LOGS = ("off", "combined", "json")  # YAML reads off as false, which is the same
LOG_LEVEL_NAMES = ("debug", "info", "warn", "error", "critical")  # Twisted's


@frozen
class Kind:
    """Which values a key takes.

    Attributes:
        check: whether a value can be. One that can say more raises ``ConfigurationError`` with the whole lines.
        noun: what such a value is called: "'ten' is no whole number from 0".
        write: what to write in its place.
        secret: whether no line may repeat the value.
    """

    check: Callable[[Any], bool]
    noun: str
    write: str
    secret: bool = False


def whole(write: str, most: float = float("inf"), noun: str = "whole number") -> Kind:
    limit = "" if most == float("inf") else f" to {most}"
    return Kind(lambda value: is_number(value, int) and 0 <= value <= most, f"{noun} from 0{limit}", write)


def seconds(write: str, above_zero: bool = False) -> Kind:
    """NaN fails every comparison, and infinity is over the limit."""
    least, start = (0.001, "above 0") if above_zero else (0, "from 0")
    noun = f"number of seconds {start}, up to {SECONDS_MAX}"
    return Kind(lambda value: is_number(value, (int, float)) and least <= value <= SECONDS_MAX, noun, write)


def number(least: float, most: float, write: str, whole: bool = False) -> Kind:
    types: Any = int if whole else (int, float)
    noun = f"{'whole number' if whole else 'number'} from {least:g} to {most:,.12g}"
    return Kind(lambda value: is_number(value, types) and least <= value <= most, noun, write)


def web_address(write: str) -> Kind:
    def is_one(value: Any) -> bool:
        return isinstance(value, (str, int)) and host_and_port(value, WEB_ADDRESS) is not None

    return Kind(is_one, "address", f"host:port or port, as {write}")


FLAG = Kind(lambda value: isinstance(value, bool), "yes or no", "true or false")
WEB_PLACE = web_address("0.0.0.0:8000 or 8000")


def is_web_place(value: Any) -> bool:
    """Whether HTTP can listen there, as far as the text tells."""
    endpoint = isinstance(value, str) and value.partition(":")[0] in ENDPOINTS and len(value.partition(":")[2]) > 0
    return endpoint or WEB_PLACE.check(value)


def are_web_places(value: Any) -> bool:
    return (bool(value) and all(map(is_web_place, value))) if isinstance(value, list) else is_web_place(value)


def are_networks(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    for each in value:
        try:
            if each != "unix":
                ip_network(each if isinstance(each, str) else "", False)
        except ValueError:
            raise ConfigurationError(
                f"WEB_TRUSTED_PROXIES: {shown(each)} is no network: write 10.0.0.0/8, 192.0.2.1, or unix"
            ) from None
    return True


def one_of(noun: str, names: tuple[str, ...]) -> Kind:
    return Kind(lambda value: isinstance(value, str) and value in names, noun, words(names))


def words(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def is_number(value: Any, types: type | tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and bool(value) and all(map(is_text, value))


def is_broker(value: Any) -> bool:
    many = isinstance(value, (list, tuple)) and all(map(is_text, value))
    return (many or isinstance(value, str)) and bool(parse_addresses(value))


def is_dotted(value: Any) -> bool:
    return isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split("."))


def are_dotted(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_dotted, value))


def are_converters(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and name.isidentifier() and is_dotted(path) for name, path in value.items()
    )


def are_users(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(is_text(each) for pair in value.items() for each in pair)


def shown(value: Any) -> str:
    """A wrong value as a line repeats it, as in YAML. A list or a mapping may have secrets: only its kind is told."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        text = repr(sanitize_url(value))
    elif isinstance(value, (int, float)):
        text = repr(value)
    else:
        return "a mapping" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


# Mappings, of which each option is looked at ----------------------------------------------------------------


def faults_inside(where: str, options: Mapping[Any, Any], kinds: Mapping[str, Kind], hint: str = "") -> list[str]:
    """The faults of the options in a mapping, a line for each; ``where`` is the key of the mapping.

    ``hint`` is told of an option that is not known.
    """
    faults = []
    for option, value in options.items():
        kind = kinds.get(option)
        if kind is None:
            faults.append(f"{where}: {shown(option)} is not known, {', '.join(kinds)} are{hint}")
        elif not kind.check(value):
            said = option if kind.secret else f"{option}: {shown(value)}"
            faults.append(f"{where}: {said} is no {kind.noun}: write {kind.write}")
    return faults


def has_none(faults: list[str]) -> bool:
    """What ``Kind.check`` gives for a value with these faults."""
    if faults:
        raise ConfigurationError(*faults)
    return True


PEM_FILE = Kind(lambda value: is_text(value) or isinstance(value, PathLike), "path", "the path of a PEM file")
TLS_OPTIONS = {
    **dict.fromkeys(("ca_certs", "certfile", "keyfile"), PEM_FILE),
    "password": Kind(is_text, "text", "that of the key, in quotes", secret=True),
}


def is_tls(value: Any) -> bool:
    if not is_mapping(value):
        return isinstance(value, bool)
    hint = "; certificates are always checked, so a private authority goes into ca_certs"
    return has_none(faults_inside("AMQP_SSL", value, TLS_OPTIONS, hint))


SERIALIZER_OPTIONS = ("encoder", "decoder", "content_type")


def are_serializers(value: Any) -> bool:
    return is_mapping(value) and has_none(
        [
            f"SERIALIZERS: {shown(name)} needs encoder, decoder and content_type, the first two as dotted paths"
            for name, entry in value.items()
            if not (
                is_text(name)
                and is_mapping(entry)
                and all(is_text(entry.get(option)) for option in SERIALIZER_OPTIONS)
                and isinstance(entry.get("content_encoding", ""), str)
            )
        ]
    )


def are_levels(value: Any) -> bool:
    return is_mapping(value) and has_none(
        [
            f"LOG_LEVELS: that of {shown(name)} is no level: write {words(LOG_LEVEL_NAMES)}"
            if is_text(name)
            else f"LOG_LEVELS: {shown(name)} is no logger: write its name, as txservices.broker"
            for name, level in value.items()
            if not (is_text(name) and isinstance(level, str) and level in LOG_LEVEL_NAMES)
        ]
    )


def texts(noun: str, write: str) -> Kind:
    return Kind(lambda value: is_text(value) or are_texts(value), f"{noun} and no list of such", write)


CORS_OPTIONS = {
    "origins": texts("origin", '["https://shop.example"], or "*" for all'),
    "methods": texts("method", "[GET, POST]"),
    "headers": texts("header", "[X-Token]"),
    "credentials": FLAG,
    "max_age": whole("600", noun="whole number of seconds"),
    "expose": texts("header", "[X-Total]"),
}


def is_cors(value: Any) -> bool:
    if not is_mapping(value):
        return False
    has_none(faults_inside("WEB_CORS", value, CORS_OPTIONS))
    origins = value.get("origins") or ()
    if value and not origins:
        raise ConfigurationError(
            'WEB_CORS: origins are missing: write a list, ["https://shop.example"], or "*" for all'
        )
    if value.get("credentials") and "*" in origins:
        raise ConfigurationError(
            "WEB_CORS: credentials and the origin * can't go together: any page could act as the user. Name the origins"
        )
    return True


def are_errors(value: Any) -> bool:
    return value is None or is_text(value) or (isinstance(value, (list, tuple)) and all(map(is_text, value)))


ERRORS = Kind(are_errors, "name of an exception, and no list of such", "OSError, or [package.module.Error]")
# The bounds are those of ``Retry`` and ``CircuitBreaker``, which stand above this room: a test compares them.
RETRY_OPTIONS = {
    "attempts": number(1, 1_000, "5", whole=True),
    "delay": number(0, 4_000_000, "1"),
    "growth": number(1, 1_000_000, "2"),
    "delay_max": number(0, 4_000_000, "300"),
    "jitter": number(0, 1, "0.1"),
    "on": ERRORS,
    "give_up_on": ERRORS,
}
BREAKER_OPTIONS = {
    "failures": Kind(lambda value: is_number(value, (int, float)) and 0 < value <= 1, "number above 0, up to 1", "0.5"),
    "window": seconds("10", above_zero=True),
    "minimum": number(1, 1_000_000, "20", whole=True),
    "open_for": seconds("5", above_zero=True),
    "on": ERRORS,
}


def named(options: Mapping[Any, Any]) -> dict[Any, Any]:
    """The options of a mapping in YAML, which reads ``on`` as true."""
    return {"on" if name is True else name: value for name, value in options.items()}


def faults_of_one(where: str, value: Any, kinds: Mapping[str, Kind]) -> list[str]:
    """The faults of the policy for one method or one service, which may be false."""
    if value is None or value is False:
        return []
    if not is_mapping(value):
        return [f"{where}: {shown(value)} is no mapping: write {next(iter(kinds))}, …, or false"]
    return faults_inside(where, named(value), kinds)


def is_retry(value: Any) -> bool:
    if not is_mapping(value):
        return False
    of_all = {name: each for name, each in named(value).items() if "." not in str(name)}
    faults = faults_inside("RETRY", of_all, RETRY_OPTIONS)
    for name, each in value.items():
        if "." in str(name):
            faults += faults_of_one(f"RETRY: {name}", each, RETRY_OPTIONS)
    return has_none(faults)


def is_breaker(value: Any) -> bool:
    if not is_mapping(value):
        return False
    of_all = {name: each for name, each in named(value).items() if name != "services"}
    faults = faults_inside("CIRCUIT_BREAKER", of_all, BREAKER_OPTIONS)
    services = value.get("services") or {}
    if not is_mapping(services):
        faults.append(f"CIRCUIT_BREAKER: services: {shown(services)} is no mapping: write NAME: {{…}}")
        services = {}
    for name, each in services.items():
        faults += faults_of_one(f"CIRCUIT_BREAKER: services: {name}", each, BREAKER_OPTIONS)
    return has_none(faults)
