"""nameko-eventlog-dispatcher: an event for each worker that begins, and those that a method writes."""

from nameko.rpc import rpc
from nameko.timer import timer
from nameko_eventlog_dispatcher import EventLogDispatcher


class UsesEventlog:
    name = "uses_eventlog"

    log = EventLogDispatcher()

    @rpc
    def sell(self, number):
        self.log("sold", {"number": number}, metadata={"shop": "here"})

    @rpc
    def quiet(self):
        """It is excluded in the configuration."""

    @timer(interval=1_000, eager=True)
    def tick(self):
        """A kind of entrypoint that isn't logged."""
