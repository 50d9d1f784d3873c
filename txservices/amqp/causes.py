"""Why there is no connection, in words: what answers at the address, and what to write in the configuration."""

from __future__ import annotations

import re

from twisted.internet.defer import TimeoutError as DeferredTimeout

from txservices.exceptions import (
    AmqpError,
    BrokerRefused,
    ConfigurationError,
    ConnectionClosedByBroker,
    ConnectionLost,
    FrameError,
    HandshakeFailed,
)
from txservices.utils.address import Address
from txservices.wire.spec import PROTOCOL_HEADER, ReplyCode

HANDSHAKE_TIMEOUT = 20.0  # seconds from the socket to the open connection; a link of 2 s latency needs 12
SHOWN_MAX = 40  # bytes of an answer that is no AMQP

# Codes by which a broker refuses a user, a password or a virtual host.
REFUSALS = {ReplyCode.ACCESS_REFUSED, ReplyCode.NOT_ALLOWED, ReplyCode.INVALID_PATH}

CREDENTIALS = "check user, password and virtual host of AMQP_URI, and the user's permissions on the broker"
# A limit of the virtual host or the user. RabbitMQ refuses with the same code as for a virtual host that isn't there.
LIMIT = re.compile(r"limit (of )?\(\d+\)")

# The beginning of an answer that is no AMQP -> who gives it, and what to write.
STRANGERS = (
    (b"\x15\x03", "it speaks TLS there: write amqps://, or the port without TLS (RabbitMQ has 5672 for that)"),
    (b"HTTP/", "it speaks HTTP there: write the port of AMQP (RabbitMQ has 5672, and 15672 is its management)"),
    (PROTOCOL_HEADER, "it refuses AMQP 0-9-1 in the form of this client, and speaks no other here"),
    (b"AMQP", "it speaks another version of AMQP, such as 1.0: a broker of AMQP 0-9-1 is needed, such as RabbitMQ"),
)

NO_TLS = "it speaks no TLS there: write amqp:// and leave out AMQP_SSL, or the port for TLS (RabbitMQ has 5671)"
# What OpenSSL and the check of a certificate say -> what that means here.
TLS_CAUSES = (
    ("wrong version number", NO_TLS),
    ("packet length too long", NO_TLS),
    ("record layer failure", NO_TLS),
    ("certificate verify failed", "its certificate is not trusted, or has expired: if an authority of your own has"
     " signed it, name the authority's file in AMQP_SSL: ca_certs"),
    ("unknown ca", "it does not know the authority of our certificate: AMQP_SSL: certfile has to be signed by one that"
     " the broker trusts, with the chain in the file"),
    ("certificate required", "it asks for a certificate of ours: name its file in AMQP_SSL: certfile and keyfile"),
    ("bad certificate", "it refuses our certificate: see AMQP_SSL: certfile, and the broker's log"),
    ("handshake failure", "it agrees to no version or cipher of TLS that is used here, or wants a certificate of ours"
     " (AMQP_SSL: certfile and keyfile)"),
    ("alert protocol version", "it knows only versions of TLS that are too old"),
    ("unsupported protocol", "it knows only versions of TLS that are too old"),
)  # fmt: skip


def stranger(data: bytes) -> str | None:
    """Who answers with these first bytes, in words with what to write; None for a frame of AMQP 0-9-1."""
    if data[:1] in (b"\x01", b""):
        return None
    for beginning, words in STRANGERS:
        if data.startswith(beginning):
            return words
    return f"no broker answers there, but something that says {data[:SHOWN_MAX]!r}: see the host and the port"


def wrong_method(mechanism: str, offered: list[str]) -> str:
    """The cause for a broker that does not offer the login that is configured, with what to write."""
    return (
        f"it takes {', '.join(offered)[:SHOWN_MAX]} for a login, and not {mechanism}: write one of these as"
        f" LOGIN_METHOD, or enable {mechanism} on the broker (RabbitMQ has EXTERNAL in rabbitmq_auth_mechanism_ssl)"
    )


def describe(error: BaseException | None) -> str:
    """The cause in a few words. Many of Twisted's errors have no text: then it is the name of their class."""
    if error is None:
        return "the connection was lost"
    if isinstance(error, DeferredTimeout):
        return f"no answer to the handshake within {HANDSHAKE_TIMEOUT:.0f} s"
    if is_limit(error):
        return f"{error}: raise the limit (rabbitmqctl set_vhost_limits, set_user_limits), or end others' connections"
    if isinstance(error, ConnectionClosedByBroker) and error.code in REFUSALS:
        return f"{error}: {CREDENTIALS}"
    return str(error).rstrip(".") or type(error).__name__


def is_limit(error: BaseException | None) -> bool:
    """Whether the broker refuses a connection, or closes it, because there are too many: it may be granted later."""
    code = ReplyCode.NOT_ALLOWED
    return isinstance(error, ConnectionClosedByBroker) and error.code == code and bool(LIMIT.search(error.text))


def tls_cause(error: BaseException) -> str | None:
    """What a failure of TLS means here; None if it is something else."""
    library = type(error).__module__.partition(".")[0]
    if library == "service_identity":
        return "its certificate is for another host: write the host as the certificate has it"
    if library != "OpenSSL":
        return None
    text = str(error).lower()
    return next((words for said, words in TLS_CAUSES if said in text), f"TLS failed: {error}")


def refusal(error: Exception | None, address: Address) -> ConfigurationError | None:
    """The error for whoever waits for the first connection, if no connection can come without another configuration."""
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(error, ConnectionClosedByBroker) and error.code in REFUSALS and not is_limit(error):
        return BrokerRefused(f"the broker at {address} refuses us ({error}): {CREDENTIALS}")
    if isinstance(error, HandshakeFailed):
        return BrokerRefused(f"no connection to the broker at {address}: {error.text}")
    return None


def no_start(data: bytes, error: FrameError) -> AmqpError:
    """The error of a connection whose first bytes are ``data``, in place of the one that they are for AMQP."""
    words = stranger(data)
    return error if words is None else HandshakeFailed(0, words)


def no_word(error: BaseException) -> AmqpError:
    """The error of a connection that ended before the broker said a word, with its cause."""
    words = tls_cause(error)
    if words is not None:
        return HandshakeFailed(0, words)
    return ConnectionLost(
        f"it ended before a word was said ({describe(error)}): see whether the port is that of AMQP, without TLS"
        " for amqp:// (RabbitMQ has 5672), with TLS for amqps:// (5671)"
    )
