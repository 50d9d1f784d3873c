"""What is typed to say which config is meant: ``--config``, ``--broker`` and ``--define``, of every command.

    the file  <-  each KEY=VALUE  <-  the broker's address

What stands further right goes before the rest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from typing import Any

from attrs import frozen

from txservices.amqp.address import DEFAULT_USER, parse_addresses
from txservices.command import settings
from txservices.constants import (
    ACCEPT_CONFIG_KEY,
    AMQP_URI_CONFIG_KEY,
    EMBEDDED_BROKER_ADDRESS_CONFIG_KEY,
    RPC_EXCHANGE_CONFIG_KEY,
    SERIALIZER_CONFIG_KEY,
)
from txservices.utils import sanitize_url

# What a client has to have in common with the services it calls. Of no other key is the value repeated: it may be
# a secret.
IN_COMMON = (EMBEDDED_BROKER_ADDRESS_CONFIG_KEY, RPC_EXCHANGE_CONFIG_KEY, SERIALIZER_CONFIG_KEY, ACCEPT_CONFIG_KEY)


@frozen
class Given:
    """The options of one command.

    Attributes:
        path: of the config file.
        broker: an address, or several.
        defines: each as typed, ``KEY=VALUE``.
    """

    path: str | None = None
    broker: str | None = None
    defines: tuple[str, ...] = ()

    def config(self) -> dict[str, Any]:
        """What they come to. ``ConfigurationError`` for what can't be read."""
        config = settings.load(self.path) if self.path else {}
        config.update(settings.define(each) for each in self.defines)
        return {**config, AMQP_URI_CONFIG_KEY: self.broker} if self.broker else config

    def to_type(self) -> str:
        """What to type for another command to come to the same broker."""
        options = f" --config {shlex.quote(self.path)}" if self.path else ""
        for each in self.defines:
            key, value = settings.define(each)
            if key in IN_COMMON:
                options += f" --define {shlex.quote(each)}"
            elif key == AMQP_URI_CONFIG_KEY and value and not self.broker:
                options += f" --broker {shlex.quote(without_secret(value))}"
        return f"{options} --broker {shlex.quote(without_secret(self.broker))}" if self.broker else options


def without_secret(uris: Any) -> str:
    """A password is not repeated, but for guest's."""
    text = ";".join(uris) if isinstance(uris, list) else str(uris)
    secret = any(address.password != DEFAULT_USER for address in parse_addresses(text))
    return sanitize_url(text) if secret else text


def command_to_type() -> str:
    """How `txservices` is typed where this process was started: by its path, if it is not the one on PATH."""
    ours = os.path.join(os.path.dirname(sys.argv[0]), "txservices")
    found = shutil.which("txservices")
    on_path = found is not None and os.path.realpath(found) == os.path.realpath(ours)
    return "txservices" if on_path or not os.path.exists(ours) else shlex.quote(ours)
