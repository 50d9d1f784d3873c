"""Kinds of values that keys of the configuration take, and the functions that tell whether a value is of a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from os import PathLike
from typing import Any

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
TLS_OPTIONS = ("ca_certs", "certfile", "keyfile", "password")


@frozen
class Kind:
    """Which values a key takes.

    Attributes:
        check: whether a value can be. One that can say more raises ``ConfigurationError`` with the whole line.
        noun: what such a value is called: "'ten' is no whole number from 0".
        write: what to write in its place.
    """

    check: Callable[[Any], bool]
    noun: str
    write: str


def whole(write: str, most: float = float("inf"), noun: str = "whole number") -> Kind:
    limit = "" if most == float("inf") else f" to {most}"
    return Kind(lambda value: is_number(value, int) and 0 <= value <= most, f"{noun} from 0{limit}", write)


def seconds(write: str, above_zero: bool = False) -> Kind:
    """NaN fails every comparison, and infinity is over the limit."""
    least, start = (0.001, "above 0") if above_zero else (0, "from 0")
    noun = f"number of seconds {start}, up to {SECONDS_MAX}"
    return Kind(lambda value: is_number(value, (int, float)) and least <= value <= SECONDS_MAX, noun, write)


def web_address(write: str) -> Kind:
    def is_one(value: Any) -> bool:
        return isinstance(value, (str, int)) and host_and_port(value, WEB_ADDRESS) is not None

    return Kind(is_one, "address", f"host:port or port, as {write}")


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


def is_tls(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return isinstance(value, bool)
    unknown = [str(option) for option in value if option not in TLS_OPTIONS]
    if unknown:
        raise ConfigurationError(
            f"AMQP_SSL: {', '.join(sorted(unknown))} is not known, {', '.join(TLS_OPTIONS)} are; certificates are"
            " always checked, so a private authority goes into ca_certs"
        )
    for option, path in value.items():
        if option == "password":
            if not is_text(path):
                raise ConfigurationError("AMQP_SSL: password is no text: write that of the key, in quotes")
        elif not (is_text(path) or isinstance(path, PathLike)):
            raise ConfigurationError(f"AMQP_SSL: {option} is no path: write the path of a PEM file")
    return True


def are_serializers(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    for name, entry in value.items():
        if not (
            is_text(name)
            and isinstance(entry, Mapping)
            and all(is_text(entry.get(option)) for option in ("encoder", "decoder", "content_type"))
            and isinstance(entry.get("content_encoding", ""), str)
        ):
            raise ConfigurationError(
                f"SERIALIZERS: {shown(name)} needs encoder, decoder and content_type, the first two as dotted paths"
            )
    return True


def are_levels(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    for name, level in value.items():
        if not is_text(name):
            raise ConfigurationError(f"LOG_LEVELS: {shown(name)} is no logger: write its name, as txservices.broker")
        if not (isinstance(level, str) and level in LOG_LEVEL_NAMES):
            raise ConfigurationError(f"LOG_LEVELS: that of {shown(name)} is no level: write {words(LOG_LEVEL_NAMES)}")
    return True


def is_cors(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    unknown = [str(option) for option in value if option not in CORS_OPTIONS]
    if unknown:
        raise ConfigurationError(f"WEB_CORS: {', '.join(sorted(unknown))} is not known, {', '.join(CORS_OPTIONS)} are")
    for option, given in value.items():
        if not CORS_OPTIONS[option](given):
            raise ConfigurationError(f"WEB_CORS: {option}: {shown(given)} can't be")
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


CORS_OPTIONS: dict[str, Callable[[Any], bool]] = {
    "origins": lambda value: is_text(value) or are_texts(value),
    "methods": lambda value: is_text(value) or are_texts(value),
    "headers": lambda value: is_text(value) or are_texts(value),
    "credentials": lambda value: isinstance(value, bool),
    "max_age": lambda value: is_number(value, int) and value >= 0,
    "expose": lambda value: is_text(value) or are_texts(value),
}


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


FLAG = Kind(lambda value: isinstance(value, bool), "yes or no", "true or false")
