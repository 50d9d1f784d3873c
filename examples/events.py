"""One service dispatches an event, and another handles it. Neither waits for the other."""

from txservices.events import EventDispatcher, event_handler
from txservices.rpc import rpc


class ServiceA:
    """Dispatches events."""

    name = "service_a"

    dispatch = EventDispatcher()

    @rpc
    def dispatching_method(self, payload):
        # Returned, so that the caller is answered when the broker has the event.
        return self.dispatch("event_type", payload)


class ServiceB:
    """Handles events."""

    name = "service_b"

    @event_handler("service_a", "event_type")
    def handle_event(self, payload):
        print("service b received:", payload)
