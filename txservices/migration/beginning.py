"""How a process begins that runs services of nameko's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger
from twisted.python import threadable

from txservices import configuration
from txservices.migration.checking.configs import NAMEKO_3
from txservices.migration.imports import install
from txservices.migration.runners import ServiceRunner

log = Logger()

WEB_SERVER_ADDRESS = "0.0.0.0:8000"  # nameko's; ours is reached from this machine alone


def begin(config: Mapping[str, Any]) -> tuple[dict[str, Any], type[ServiceRunner]]:
    """Have nameko's names lead to ours, before the services' modules are imported.

    To be called in the thread in which the reactor is going to run. Gives the configuration with nameko's defaults, and
    the class of the runner.
    """
    config = {configuration.WEB_SERVER_ADDRESS.name: WEB_SERVER_ADDRESS, **config, configuration.NAMEKO.name: True}
    for key in NAMEKO_3.keys() & config.keys():
        log.warn("{text}", text=NAMEKO_3[key])
    install(config)
    threadable.registerAsIOThread()  # what is called here before the reactor runs must not wait for it
    return config, ServiceRunner
