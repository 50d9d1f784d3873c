"""The service that the views of ``views.py`` call."""

import queue

from nameko.contextdata import Language
from nameko.events import event_handler
from nameko.rpc import rpc

heard = queue.Queue()


class UsesViews:
    name = "uses_views"

    language = Language()

    @rpc
    def greet(self, name):
        return f"{'salut' if self.language == 'fr' else 'hello'} {name}"

    @rpc
    def fail(self):
        raise KeyError("nobody")

    @event_handler("views", "seen")
    def hear(self, data):
        heard.put(data)

    @rpc
    def next(self):
        """The next thing that is heard."""
        return heard.get()
