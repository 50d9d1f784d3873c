"""The options by which every command is told its configuration: ``--config``, ``--define`` and ``--broker``.

    the file  <-  each KEY=VALUE  <-  the broker's address

An option further to the right overrides those to its left.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

import click
from attrs import frozen

from txservices import configuration
from txservices.command import settings
from txservices.utils import sanitize_url, secrets
from txservices.utils.address import DEFAULT_USER, parse_addresses

# Keys that a client and the services it calls must have in common. The values of other keys are not shown: they may
# be secret.
IN_COMMON = [
    key.name
    for key in (
        configuration.EMBEDDED_BROKER_ADDRESS,
        configuration.RPC_EXCHANGE,
        configuration.SERIALIZER,
        configuration.ACCEPT,
    )
]


@frozen
class Given:
    """The options that one command was given.

    Attributes:
        path: the path of the config file.
        broker: the address of a broker, or several with ``;`` between them.
        defines: each ``KEY=VALUE`` as it was typed.
        ops: the operations address.
        nameko: whether the services are nameko's.
    """

    path: str | None = None
    broker: str | None = None
    defines: tuple[str, ...] = ()
    ops: str | None = None
    nameko: bool = False

    def config(self) -> dict[str, Any]:
        """The configuration that they give together. ``ConfigurationError`` if the file or any value is wrong."""
        defined = dict(settings.define(each) for each in self.defines)
        options = {configuration.AMQP_URI.name: self.broker, configuration.OPS_ADDRESS.name: self.ops}
        # an empty one is a mistake, and not the embedded broker
        defined |= {name: option for name, option in options.items() if option is not None}
        config = settings.load(self.path, typed=defined) if self.path else {}
        config.update(defined)
        if self.nameko:
            config[configuration.NAMEKO.name] = True
        secrets.learn(config)
        configuration.check(config)
        return config

    def to_type(self) -> str:
        """The options with which another command reaches the same broker, each with a space before it."""
        options = f" --config {shlex.quote(self.path)}" if self.path else ""
        for each in self.defines:
            key, value = settings.define(each)
            if key in IN_COMMON:
                options += f" --define {shlex.quote(each)}"
            elif key == configuration.AMQP_URI.name and value and not self.broker:
                options += f" --broker {shlex.quote(without_secret(value))}"
        return f"{options} --broker {shlex.quote(without_secret(self.broker))}" if self.broker else options


def without_secret(uris: Any) -> str:
    """The addresses, with the password hidden unless it is that of guest."""
    text = ";".join(uris) if isinstance(uris, list) else str(uris)
    secret = any(address.password != DEFAULT_USER for address in parse_addresses(text))
    return sanitize_url(text) if secret else text


def command_to_type() -> str:
    """How to type `txservices`: by its path, if PATH does not lead to the one that runs here."""
    ours = os.path.join(os.path.dirname(sys.argv[0]), "txservices")
    found = shutil.which("txservices")
    on_path = found is not None and os.path.realpath(found) == os.path.realpath(ours)
    return "txservices" if on_path or not os.path.exists(ours) else shlex.quote(ours)


# The options, for click -----------------------------------------------------------------------------------------------

config_option = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    help="A YAML file. ${NAME:default} in it comes from the environment.",
)
broker_option = click.option(
    "-b", "--broker", metavar="URI", help="amqp://user:password@host:port/vhost. It overrides the file."
)
define_option = click.option(
    "-d",
    "--define",
    "defines",
    metavar="KEY=VALUE",
    multiple=True,
    help="A key of the config, with its value in YAML. It overrides the file. Can be given several times.",
)


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: adds --config, --broker and --define to a command, which gets them as one argument, `given`."""

    @functools.wraps(command)
    def take(path: str | None, broker: str | None, defines: tuple[str, ...], **others: Any) -> None:
        command(given=Given(path, broker, defines), **others)

    return config_option(broker_option(define_option(take)))
