"""An address to a Twisted endpoint: TCP, TLS with the certificate checked, or the embedded broker in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from txservices.exceptions import ConfigurationError
from txservices.utils.address import Address

BEGIN = b"-----BEGIN CERTIFICATE-----"
HOST_NAME = re.compile(r"[a-z0-9.:%-]+", re.IGNORECASE)  # or an address of IPv4 or IPv6
CONNECT_TIMEOUT = 5.0  # seconds for a TCP connection to come about

# A client does not import the broker: its endpoint is found by name, and loaded only for an address that needs it.
MEMORY_ENDPOINT = "txservices.broker.memory:endpoint"


def endpoint_for(address: Address, tls: Mapping[str, Any] | bool | None, clock: Any) -> IStreamClientEndpoint:
    """A Twisted endpoint that connects to that address. ``tls`` is the configuration's ``AMQP_SSL``."""
    if address.scheme == "memory":
        module, _, name = MEMORY_ENDPOINT.partition(":")
        make: Callable[[str], IStreamClientEndpoint] = getattr(import_module(module), name)
        return make(address.host)
    tcp = tcp_endpoint(address, clock)
    if not (address.tls or tls):
        return tcp
    return wrapClientTLS(tls_options(address.host, tls if isinstance(tls, Mapping) else {}), tcp)


def tcp_endpoint(address: Address, clock: Any) -> IStreamClientEndpoint:
    """An endpoint without TLS, for any host that the machine's resolver knows."""
    host = address.host
    if host.isascii() and not HOST_NAME.fullmatch(host):
        # Docker Compose calls its hosts rabbit_mq and the like. HostnameEndpoint asks IDNA, which has no underscores.
        return TCP4ClientEndpoint(clock, host, address.port, timeout=CONNECT_TIMEOUT)
    try:
        return HostnameEndpoint(clock, host.encode("idna"), address.port, timeout=CONNECT_TIMEOUT)
    except UnicodeError as error:
        raise ConfigurationError(f"AMQP_URI: {host!r} can't be the name of a host: {error}") from None


def tls_options(host: str, options: Mapping[str, Any]) -> Any:
    """How to check the broker's certificate, and which certificate of ours to show, with its chain."""
    from twisted.internet import ssl  # OpenSSL is loaded only if TLS is used

    trust = None
    if "ca_certs" in options:
        trust = ssl.trustRootFromCertificates(certificates("ca_certs", read(options["ca_certs"])))
    own: Any = None
    more: dict[str, Any] = {}
    if "certfile" in options:
        own, more["extraCertChain"] = own_certificate(options)
    try:
        return ssl.optionsForClientTLS(host, trust, own, extraCertificateOptions=more)
    except ValueError as error:  # UnicodeError, mostly
        raise ConfigurationError(
            f"AMQP_SSL: no certificate can be checked for the host {host!r} ({error}): give the host a name of letters,"
            " digits and hyphens"
        ) from None


def own_certificate(options: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """Our certificate with its key, and the rest of the chain, which a broker needs that trusts only its root."""
    from OpenSSL import SSL, crypto
    from twisted.internet import ssl

    own, *rest = certificates("certfile", read(options["certfile"]))
    key_option = "keyfile" if "keyfile" in options else "certfile"
    text = read(options.get("keyfile", options["certfile"]))
    password = options.get("password")
    if b"ENCRYPTED" in text and password is None:  # OpenSSL would ask for it on the terminal
        raise ConfigurationError(f"AMQP_SSL: the key in {key_option} is encrypted: give its password as `password`")
    try:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, text, str(password or "").encode())
    except crypto.Error as error:
        why = (
            "its password is another"
            if b"ENCRYPTED" in text
            else "there is none, or it is no PEM: name its file as keyfile"
        )
        raise ConfigurationError(f"AMQP_SSL: the key in {key_option} can't be read: {why}") from error
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(own.original)
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise ConfigurationError(
            f"AMQP_SSL: the key in {key_option} does not belong to the certificate in certfile"
        ) from error
    both = own.dumpPEM() + crypto.dump_privatekey(crypto.FILETYPE_PEM, key)
    return ssl.PrivateCertificate.loadPEM(both), [each.original for each in rest]


def read(path: Any) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"AMQP_SSL: {error.filename} can't be read: {error.strerror}") from error


def certificates(option: str, text: bytes) -> list[Any]:
    """The certificates in a PEM file, in their order."""
    from OpenSSL.crypto import Error
    from twisted.internet import ssl

    parts = text.split(BEGIN)[1:]
    try:
        found = [ssl.Certificate.loadPEM(BEGIN + each) for each in parts]
    except Error as error:
        raise ConfigurationError(f"AMQP_SSL: a certificate in {option} can't be read as PEM") from error
    if not found:
        raise ConfigurationError(f"AMQP_SSL: {option} has no certificate in it: give a PEM file")
    return found
