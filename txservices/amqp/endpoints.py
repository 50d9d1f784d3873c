"""An address to a Twisted endpoint: TCP, TLS with the certificate checked, or the embedded broker in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from txservices.exceptions import ConfigurationError
from txservices.utils.address import Address

CONNECT_TIMEOUT = 5.0  # seconds for a TCP connection to come about

# A client does not import the broker: its endpoint is found by name, and loaded only for an address that needs it.
MEMORY_ENDPOINT = "txservices.broker.memory:endpoint"


def endpoint_for(address: Address, tls: Mapping[str, Any] | bool | None, clock: Any) -> IStreamClientEndpoint:
    """A Twisted endpoint that connects to that address. ``tls`` is the configuration's ``AMQP_SSL``."""
    if address.scheme == "memory":
        module, _, name = MEMORY_ENDPOINT.partition(":")
        make: Callable[[str], IStreamClientEndpoint] = getattr(import_module(module), name)
        return make(address.host)
    tcp = HostnameEndpoint(clock, address.host.encode("idna"), address.port, timeout=CONNECT_TIMEOUT)
    if not (address.tls or tls):
        return tcp
    return wrapClientTLS(tls_options(address.host, tls if isinstance(tls, Mapping) else {}), tcp)


def tls_options(host: str, options: Mapping[str, Any]) -> Any:
    """How to check the broker's certificate, and which certificate of ours to show."""
    from OpenSSL.SSL import Error as OpenSSLError  # OpenSSL is loaded only if TLS is used
    from twisted.internet import ssl

    try:
        trust = None
        if "ca_certs" in options:
            chain = Path(options["ca_certs"]).read_bytes().split(b"-----BEGIN CERTIFICATE-----")[1:]
            trust = ssl.trustRootFromCertificates(
                [ssl.Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + one) for one in chain]
            )
        own = None
        if "certfile" in options:
            key = Path(options.get("keyfile", options["certfile"])).read_bytes()
            own = ssl.PrivateCertificate.loadPEM(Path(options["certfile"]).read_bytes() + b"\n" + key)
    except OSError as error:
        raise ConfigurationError(f"AMQP_SSL: {error.filename} can't be read: {error.strerror}") from error
    except OpenSSLError as error:
        raise ConfigurationError(f"AMQP_SSL: a certificate or key can't be read as PEM: {error}") from error
    return ssl.optionsForClientTLS(host, trustRoot=trust, clientCertificate=own)
