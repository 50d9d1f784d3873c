"""What each feature of nameko's costs to move, in lines: the table in docs/migrating.md."""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import ROOT
from txservices.migration.checking.reading import read
from txservices.migration.checking.report import diff

CLASS = "\n\nclass S:\n    name = 's'\n"
# features -> the module's imports, and the lines of its class
MODULES = {
    "`@rpc`": ("from nameko.rpc import rpc", "@rpc", "def a(self, x):", "    return x + 1"),
    "a call whose value is used": (
        "from nameko.rpc import RpcProxy, rpc",
        "y = RpcProxy('y')",
        "@rpc",
        "def a(self, x):",
        "    return self.y.get(x) + 1",
    ),
    "a call whose value goes through helpers": (
        "from nameko.rpc import RpcProxy, rpc",
        "y = RpcProxy('y')",
        "def helper(self, x):",
        "    return self.y.get(x)",
        "@rpc",
        "def a(self, x):",
        "    return self.helper(x) + 1",
    ),
    "`@event_handler`, `EventDispatcher`": (
        "from nameko.events import EventDispatcher, event_handler",
        "dispatch = EventDispatcher()",
        "@event_handler('a', 'b')",
        "def a(self, x):",
        "    self.dispatch('c', x)",
    ),
    "`@consume`, `Publisher`": (
        "from nameko.messaging import Publisher, consume\nfrom kombu import Queue",
        "publish = Publisher()",
        "@consume(Queue('q'))",
        "def a(self, x):",
        "    self.publish(x)",
    ),
    "`@http`": ("from nameko.web.handlers import http", "@http('GET', '/')", "def a(self, request):", "    return 'x'"),
    "`@timer`": ("from nameko.timer import timer", "@timer(interval=1)", "def a(self):", "    pass"),
    "WebSockets": (
        "from nameko.web.websocket import WebSocketHubProvider, rpc",
        "hub = WebSocketHubProvider()",
        "@rpc",
        "def a(self, socket_id):",
        "    self.hub.subscribe(socket_id, 'a')",
    ),
    "a method that waits for a database or `requests`": (
        "import requests\nfrom nameko.rpc import rpc",
        "@rpc",
        "def a(self, x):",
        "    return requests.get(x).text",
    ),
    "a standalone proxy in a script": ("from nameko.standalone.rpc import ClusterRpcProxy",),
}


class Costs(SynchronousTestCase):
    """The table."""

    def test_table(self) -> None:
        """Each row says how many lines `migrate apply` changes or adds."""
        with open(os.path.join(ROOT, "docs", "migrating.md"), encoding="utf-8") as file:
            rows = re.findall(r"^\| (.+) \| (\d+) \|$", file.read(), re.MULTILINE)
        measured = []
        for feature, (imports, *lines) in MODULES.items():
            text = imports + CLASS + "".join(f"    {line}\n" for line in lines) if lines else imports
            changes = diff(read("module.py", text), text).splitlines()
            measured.append((feature, str(sum(line.startswith("+") and line[:3] != "+++" for line in changes))))
        self.assertEqual(rows, measured)
