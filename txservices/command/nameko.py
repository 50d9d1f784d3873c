"""nameko's command lines, as they are: ``txservices nameko run --config config.yaml service``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from txservices.command import exits
from txservices.migration.settings import __version__

__all__ = ["translated"]

BROKER = "pyamqp://guest:guest@localhost"  # nameko's, where neither --config nor --broker is given


def parser() -> argparse.ArgumentParser:
    """nameko's options. argparse takes abbreviations of them, too."""
    made = argparse.ArgumentParser(prog="nameko")
    made.add_argument("-v", "--version", action="version", version=f"nameko {__version__}, by txservices")
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", description="Run nameko services.")
    run.add_argument("services", nargs="+", metavar="module[:service class]")
    run.add_argument("-c", "--config")
    run.add_argument("-b", "--broker")
    run.add_argument("-d", "--define", action="append", default=[], metavar="KEY=VALUE")
    run.add_argument("--backdoor-port", type=int)
    shell = commands.add_parser("shell", description="Open a Python prompt that calls services.")
    shell.add_argument("-c", "--config")
    shell.add_argument("-b", "--broker")
    shell.add_argument("-d", "--define", action="append", default=[], metavar="KEY=VALUE")
    shell.add_argument("--interface", choices=["bpython", "ipython", "plain"])
    show = commands.add_parser("show-config", description="Print the configuration.")
    show.add_argument("-c", "--config")
    backdoor = commands.add_parser("backdoor", description="Connect to a process's prompt.")
    backdoor.add_argument("target", metavar="[host:]port")
    backdoor.add_argument("--rlwrap", dest="rlwrap", action="store_true")
    backdoor.add_argument("--no-rlwrap", dest="rlwrap", action="store_false")
    return made


def translated(arguments: Sequence[str]) -> list[str]:
    """Our command line for one of nameko's. A mistake in it ends the process with status 2, as nameko does."""
    given = parser().parse_args(arguments)
    if given.command == "backdoor":
        host, _, port = given.target.rpartition(":")
        parser().exit(exits.MISTAKE, f"nameko backdoor: type `telnet {host or 'localhost'} {port}`\n")
    line: list[str] = [given.command]
    if given.config is not None:
        line += ["--config", given.config]
    if given.command == "show-config":
        return line
    if given.broker is not None or given.config is None:
        line += ["--broker", BROKER if given.broker is None else given.broker]
    for each in given.define:
        line += ["--define", each]
    if given.command == "shell":
        return line if given.interface is None else [*line, "--interface", given.interface]
    if given.backdoor_port is not None:
        line += ["--backdoor-port", str(given.backdoor_port)]
    return [*line, "--nameko", *given.services]
