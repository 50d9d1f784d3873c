"""What differs in a configuration file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from txservices.migration.checking.findings import Finding, Group

# What pre-releases of nameko 3 read, and nothing here does
NAMEKO_3 = {
    "CONCURRENCY_BACKEND": "CONCURRENCY_BACKEND is of a pre-release of nameko 3, and means nothing here: there are"
    " threads, and neither eventlet nor gevent. Take it out",
}


def of_configuration(
    config: Any, lines: Mapping[str, int], serves_http: bool, meant: Mapping[str, str]
) -> Iterator[Finding]:
    """The findings of a configuration that was read.

    ``lines`` has the line of each key, and ``meant`` the keys that are mistyped, or nameko 3's, with those of ours.
    """
    if not isinstance(config, Mapping):
        yield Finding(1, Group.CANNOT, "configuration", "the file has no keys: it is no configuration")
        return
    if "AMQP_URI" not in config:
        text = "AMQP_URI is absent: nameko does not start then, and here the embedded broker is used, for this machine"
        yield Finding(1, Group.CHANGE, "configuration", text)
    if serves_http and "WEB_SERVER_ADDRESS" not in config:
        text = (
            "WEB_SERVER_ADDRESS is absent: without --nameko HTTP is served on 127.0.0.1:8000, which nobody outside a"
            " container reaches; nameko's default is 0.0.0.0:8000"
        )
        yield Finding(1, Group.WITH_NAMEKO, "configuration", text)
    for key in config:
        line = lines.get(str(key), 1)
        if key == "serializer" and config[key] == "pickle":
            text = "pickle runs what a message says: json is read and written; see docs/messaging.md for others"
            yield Finding(line, Group.CANNOT, "configuration", text)
        elif key == "TRANSPORT_OPTIONS":
            text = "TRANSPORT_OPTIONS are kombu's, and mean nothing here: a connection comes back by itself"
            yield Finding(line, Group.AS_IT_IS, "configuration", text)
        elif key in NAMEKO_3:
            yield Finding(line, Group.CHANGE, "configuration", NAMEKO_3[key])
        elif key in meant:
            text = f"{key} means nothing here: is {meant[key]} meant?"
            yield Finding(line, Group.CHANGE, "configuration", text)
