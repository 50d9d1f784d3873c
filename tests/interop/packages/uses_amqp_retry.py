"""Workers that back off and are run again later, by nameko-amqp-retry."""

import queue
from collections import Counter

from kombu import Queue
from nameko.events import EventDispatcher
from nameko.extensions import DependencyProvider
from nameko.messaging import Publisher
from nameko_amqp_retry import Backoff, entrypoint_retry
from nameko_amqp_retry.events import event_handler
from nameko_amqp_retry.messaging import consume
from nameko_amqp_retry.rpc import rpc

posted = Queue("posted")
tries = Counter()
seen = queue.Queue()


class Soon(Backoff):
    schedule = (20,)
    limit = 2
    random_sigma = 0


class Stack(DependencyProvider):
    def get_dependency(self, worker_ctx):
        return worker_ctx.call_id_stack


class UsesAmqpRetry:
    name = "uses_amqp_retry"

    stack = Stack()
    send_event = EventDispatcher()
    send = Publisher()

    def backs_off(self, key, times):
        tries[key] += 1
        if tries[key] <= times:
            raise Soon()
        return tries[key]

    @rpc
    def third_time(self, thing):
        return [thing, self.backs_off("third_time", 2)]

    @rpc
    @entrypoint_retry(retry_for=KeyError, limit=5, schedule=(20,), random_sigma=0)
    def declared(self, thing):
        tries["declared"] += 1
        if tries["declared"] < 3:
            raise KeyError(thing)
        return [thing, tries["declared"]]

    @rpc
    def never(self, thing):
        self.backs_off("never", 9)

    @rpc
    def dispatch(self, thing):
        self.send_event("asked", thing)

    @event_handler("uses_amqp_retry", "asked")
    def on_asked(self, thing):
        seen.put(["dispatch", thing, self.stack])
        self.backs_off("on_asked", 1)

    @rpc
    def publish(self, thing):
        self.send(thing, routing_key="posted")

    @consume(posted)
    def on_posted(self, thing):
        seen.put(["publish", thing, self.stack])
        self.backs_off("on_posted", 1)

    @rpc
    def next_seen(self):
        return seen.get(timeout=60)
