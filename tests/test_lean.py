"""A service loads only what it uses: the libraries of HTTP are imported where HTTP is served or spoken."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from tests import processes

IDLE = """
import sys

from txservices import Entrypoint, EventDispatcher, RpcProxy, event_handler, rpc


class Tell(Entrypoint):
    def start(self):
        print("loaded:", *sorted(sys.modules.keys() & {"crochet", "klein", "treq", "werkzeug"}), flush=True)


class Service:
    name = "service"
    other = RpcProxy("other")
    dispatch = EventDispatcher()

    @rpc
    def method(self): ...

    @event_handler("source", "type")
    def handle(self, data): ...

    @Tell.decorator
    def tell(self): ...
"""


class Lean(TestCase):
    """A service in a process of its own, so that nothing else has loaded anything."""

    async def test_idle_service(self) -> None:
        """A service of RPC and events that starts has loaded neither treq nor Klein nor werkzeug nor crochet."""
        folder = self.mktemp()
        os.mkdir(folder)
        with open(os.path.join(folder, "idle.py"), "w", encoding="utf-8") as file:
            file.write(IDLE)
        argv = [processes.script("txservices"), "run", "idle", "--broker", "memory://lean"]
        process = processes.start(self, argv, folder)
        await process.line(r"^loaded:$")
        await processes.stopped(process)
