"""Every instance of the listener hears the event. With the default handler type only one of them would."""

from txservices.events import BROADCAST, event_handler


class ListenerService:
    name = "listener"

    @event_handler("monitor", "ping", handler_type=BROADCAST, reliable_delivery=False)
    def ping(self, payload):
        print(f"pong from {self.name}")
