"""What ``nameko.cli.main`` and ``nameko.cli.run`` lead to: functions that start services from scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from txservices.command import exits, logs, outputs, tap
from txservices.command.cli import commands
from txservices.command.nameko import parser, translated
from txservices.migration.beginning import begin
from txservices.utils import default_reactor

__all__ = ["main", "run", "setup_parser"]

setup_parser = parser  # nameko's name


def main(arguments: Sequence[str] | None = None) -> None:
    """nameko's entry function: a command line, by default that of the process."""
    commands.main(translated(sys.argv[1:] if arguments is None else arguments), standalone_mode=True)


def run(services: Iterable[type[Any]], config: Mapping[str, Any], backdoor_port: int | None = None) -> NoReturn:
    """Run service classes until SIGTERM or Ctrl-C."""
    ending = exits.Ending(default_reactor())
    config, runner_cls = begin(config)
    logs.begin(config)
    tree = tap.ServiceTree(config, ending, outputs.Output(sys.stdout).line, "", runner_cls)
    for each in services:
        tree.runner.add_service(each)
    tree.open_backdoor(None if backdoor_port is None else str(backdoor_port))
    tap.run(tree, ending)
