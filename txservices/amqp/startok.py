"""What a client says of itself when a connection starts: the arguments of ``connection.start-ok``."""

from __future__ import annotations

from platform import python_version
from typing import Any

from txservices import __version__
from txservices.exceptions import ConfigurationError
from txservices.utils.address import Address
from txservices.wire.codec import encode_method
from txservices.wire.login import encode_login
from txservices.wire.spec import FRAME_MIN_SIZE, FRAME_OVERHEAD

CAPABILITIES = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "basic.nack": True,
    "exchange_exchange_bindings": True,
    "authentication_failure_close": True,
}


def start_ok(address: Address, mechanism: str, name: str) -> dict[str, Any]:
    """The arguments, with the login; ``name`` is the connection's.

    ``ConfigurationError`` if they do not fit into a frame as large as it may be before the tuning.
    """
    arguments = {
        "client_properties": {
            "product": "txservices",
            "version": __version__,
            "platform": f"Python {python_version()}",
            "connection_name": name,
            "capabilities": CAPABILITIES,
        },
        "mechanism": mechanism,
        "response": encode_login(mechanism, address.username, address.password),
        "locale": "en_US",
    }
    over = len(encode_method("connection.start-ok", **arguments)) + FRAME_OVERHEAD - FRAME_MIN_SIZE
    if over > 0:
        raise ConfigurationError(
            f"AMQP_URI: user and password are {over:,} bytes too long for the first frame of AMQP, which holds"
            f" {FRAME_MIN_SIZE:,} bytes with the names of the services: give the user a shorter password"
        )
    return arguments
