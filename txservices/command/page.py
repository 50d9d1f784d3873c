"""`txservices page`: the page that shows a cluster live, by itself. `txservices run --page` has it in its process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from txservices.command import exits, logs, outputs, tap
from txservices.command.broker import for_client
from txservices.command.options import Given, configured
from txservices.exceptions import CommandError
from txservices.utils import default_reactor
from txservices.utils.address import LOOPBACK, WEB_ADDRESS, host_and_port


@click.command()
@configured
@click.option("--port", metavar="[HOST:]PORT", help="Where to open it; 127.0.0.1:8008 if it isn't given.")
@click.option("--management", metavar="URL", help="Show all queues that RabbitMQ's management lists there.")
def page(given: Given, port: str | None, management: str | None) -> None:
    """Show the cluster in a browser, live: its services, calls, failures, queues and parked messages.

    The address that is printed has a token in it, with which the page may also call methods, and replay and discard
    parked messages.
    """
    config = given.config()
    address = (LOOPBACK, None) if port is None else host_and_port(port, WEB_ADDRESS)
    if address is None:
        raise CommandError(f"--port {port}: write a port, or host:port")
    lists = None
    if management is not None:
        from txservices.command import whereabouts  # it loads treq

        lists = partial(whereabouts.listed, management)
    ending = exits.Ending(default_reactor())
    logs.begin(config)
    tap.run(PageAlone(config, address, lists, ending, outputs.Output(sys.stdout).line), ending)


class PageAlone(tap.Running):
    """The page and nothing else."""

    def __init__(
        self,
        config: dict[str, Any],
        address: tuple[str, int | None],
        lists: Any,
        ending: exits.Ending,
        say: Callable[[str], object],
    ) -> None:
        super().__init__(ending)
        self.config = config
        self.host_and_port = address
        self.lists = lists
        self.say = say
        self.page: Any = None

    async def come_up(self) -> None:
        from txservices.page.cluster import ClusterPage  # it loads what serves HTTP, which no other command needs

        reactor = self.ending.reactor
        self.page = ClusterPage(await for_client(self.config, reactor), reactor, self.lists)
        await self.page.start(*self.host_and_port)
        self.say(f"page: {self.page.address}")

    async def go_down(self) -> bool:
        if self.life is not None:
            self.life.cancel()
        if self.page is not None:
            await self.page.stop()
        return True
