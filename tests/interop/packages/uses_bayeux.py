"""nameko-bayeux-client: events of a Bayeux server, which is ``cometd.py`` beside this file."""

import collections
import collections.abc
import queue

from cometd import Cometd
from nameko import config
from nameko.rpc import rpc

collections.Sequence = collections.abc.Sequence  # which the package asks for; it went with Python 3.10

from nameko_bayeux_client import subscribe  # noqa: E402

server = Cometd(config["BAYEUX"]["SERVER_URI"])
heard = queue.Queue()


class UsesBayeux:
    name = "uses_bayeux"

    @subscribe("/news")
    def hear(self, channel, data):
        heard.put([channel, data])

    @rpc
    def send(self, data):
        """Have the server tell that, and give what the service heard."""
        server.events.put({"channel": "/news", "data": data})
        return heard.get()

    @rpc
    def asked(self):
        return server.asked
