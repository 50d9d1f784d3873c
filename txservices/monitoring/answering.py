"""A process of the fleet: it answers when it is asked, and says nothing otherwise.

    the exchange  -->  a queue of ours alone, on a channel of its own  -->  asked  -->  [delay]  -->  answer  -->  asker

The channel is on the connection that publishes: the broker keeps back acks on a connection that has published while it
is short of memory. A refusal of the broker's closes that channel, and nothing else.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Mapping
from importlib.metadata import version
from random import uniform
from time import monotonic
from typing import Any
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txservices.amqp.channel import Channel
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.publishing import Publishing, forgotten
from txservices.amqp.topology import DECLARE_TIMEOUT, declare_on, gone
from txservices.exceptions import AmqpError, ConnectionClosedByBroker, ConnectionLost, DeclarationMismatch
from txservices.monitoring import answers
from txservices.monitoring.answers import Answer, Ask, Happened, Process, Tailed
from txservices.monitoring.answers import Service as Described
from txservices.monitoring.counters import Counting
from txservices.monitoring.described import service_of
from txservices.monitoring.failures import FAILURES_MAX, Failures
from txservices.monitoring.happening import Happening
from txservices.observers import Observer, observers
from txservices.wire.codec import encode_properties

__all__ = ["Answering"]

DUE_MAX = 20  # answers that wait for their time, or for the broker's confirm; further asks are not answered
COUNTED = 300.0  # seconds after the last ask in which workers and calls are counted
OPENED_AGAIN = 30.0  # seconds until a process can be asked again whose channel the broker has closed
EVENTS_MAX = 1_000  # types of events that are known to have been told
EXPIRATION = "10000"  # milliseconds after which an answer is of no use
SHORTENED = ("failures", "edges", "methods", "services")  # what an answer leaves out that is too long, in this order

log = Logger()


class Events(Observer):
    """Knows which events were told: no service says it anywhere else."""

    def __init__(self, config: Mapping[str, Any], names: list[str]) -> None:
        super().__init__(config)
        self.names = names
        self.told: set[tuple[str, str]] = set()

    def event_dispatched(self, service: str, event_type: str) -> None:
        """See ``Observer``."""
        event = service, event_type
        if event not in self.told and service in self.names and len(self.told) < EVENTS_MAX:
            self.told.add(event)


class Answering(Service):
    """Answers for the services of a process.

    Args:
        connections: those of the process.
        shared: what its services share.
        config: its configuration.
    """

    def __init__(self, connections: Any, shared: Any, config: Mapping[str, Any]) -> None:
        self.connections = connections
        self.connection = connections.publisher.connection
        self.clock = connections.clock
        self.shared = shared
        self.config = config
        self.id = uuid4().hex
        self.since = time.time()
        self.version = version("txservices")
        self.failures = Failures(config, shared)
        self.events = Events(config, shared.containers)
        self.happening = Happening(config, shared, connections, self.clock, self.tell)
        self.counting: Counting | None = None
        self.counted_until: Any = None
        self.due: set[Any] = set()  # delayed calls
        self.channel: Channel | None = None
        self.opening: Deferred[None] | None = None
        self.again: Any = None
        self.told = False
        self.queue = Queue(
            exchange=Exchange(answers.EXCHANGE, type="topic"),
            routing_key="ask.#",
            durable=False,
            exclusive=True,
            auto_delete=True,
        )

    # Being there

    def startService(self) -> None:
        super().startService()
        observers.add(self.failures)
        observers.add(self.events)
        self.connection.on_connected.append(self.attach)
        if self.connection.protocol is not None:
            self.attach(self.connection.protocol)

    def stopService(self) -> None:
        if not self.running:
            return  # stopped twice, as services may be
        super().stopService()
        self.give_up()
        for each in (self.failures, self.events):
            observers.remove(each)
        self.happening.stop()
        self.count_no_more()
        for call in [*self.due, *filter(None, [self.again])]:
            if call.active():
                call.cancel()
        if self.opening is not None:
            self.opening.cancel()

    def give_up(self) -> None:
        if self.attach in self.connection.on_connected:
            self.connection.on_connected.remove(self.attach)

    def attach(self, protocol: Protocol) -> None:
        """Have asks come in on that connection. Nobody waits for it."""
        if self.opening is None:
            self.opening = Deferred.fromCoroutine(self.open(protocol))
            self.opening.addErrback(self.refused).addCallback(self.opened)

    def opened(self, _: None) -> None:
        self.opening = None

    async def open(self, protocol: Protocol) -> None:
        channel = await protocol.open_channel(DECLARE_TIMEOUT)
        try:
            name = await declare_on(channel, self.queue)
            await channel.confirm_select()
            await channel.basic_qos(prefetch_count=DUE_MAX)
            await channel.consume(name, f"fleet {self.id}", self.asked)
        except BaseException:
            if not channel.closed:
                protocol.close_channel(channel).addErrback(gone)
            raise
        channel.patience = None
        channel.on_closed = self.channel_closed
        channel.on_cancelled = self.cancelled
        self.channel = channel

    def refused(self, failure: Failure) -> None:
        error = failure.value
        assert error is not None, "a failure has an error"
        if isinstance(error, ConnectionClosedByBroker) or isinstance(error.__cause__, ConnectionClosedByBroker):
            self.give_up()  # it may have been for this, and then the next one would be, too
        if isinstance(error, (ConnectionLost, CancelledError)):
            return
        if isinstance(error, (AmqpError, DeclarationMismatch)):
            self.tell_once(error)
        else:
            log.failure("this process can't be asked by the fleet's commands", failure)

    def tell_once(self, error: Exception) -> None:
        if not self.told:
            self.told = True
            log.warn("the fleet's commands and page don't see this process, which does without: {error}", error=error)

    def channel_closed(self, error: AmqpError) -> None:
        self.channel = None
        if isinstance(error, (ConnectionLost, ConnectionClosedByBroker)):
            return  # the next one is attached to
        self.tell_once(error)
        if self.running and self.again is None:
            self.again = self.clock.callLater(OPENED_AGAIN, self.open_again)

    def cancelled(self, tag: str) -> None:
        """Somebody has deleted the queue."""
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.on_closed = None
            channel.client.close_channel(channel).addErrback(gone)
            self.open_again()

    def open_again(self) -> None:
        self.again = None
        protocol = self.connection.protocol
        if self.running and self.channel is None and protocol is not None and not protocol.closed:
            self.attach(protocol)

    # Being asked

    def asked(self, message: Message) -> None:
        message.ack()
        reply_to = message.properties.get("reply_to")
        correlation_id = message.properties.get("correlation_id") or ""
        if not reply_to:
            return
        try:
            ask = answers.read_ask(message.body)
        except ValueError:  # somebody of another version: the answer tells of which this one is
            ask = {"version": answers.VERSION, "want": []}
        if not answers.is_asked(ask, self.process()):
            return
        tail = ask.get("tail")
        if "tail" in ask["want"] and tail is not None:
            self.happening.lease(reply_to, correlation_id, tail)
            return
        if "counts" in ask["want"]:
            self.count()
        unconfirmed = len(self.channel.unconfirmed) if self.channel is not None else 0
        if len(self.due) + unconfirmed < DUE_MAX:
            spread = min(max(ask.get("spread", 0.0), 0.0), answers.SPREAD_MAX)
            self.due.add(self.clock.callLater(uniform(0.0, spread), self.answer, ask, reply_to, correlation_id))

    def answer(self, ask: Ask, reply_to: str, correlation_id: str) -> None:
        self.due = {each for each in self.due if each.active()}
        answer: Answer = {"version": answers.VERSION, "process": self.process()}
        if "services" in ask["want"]:
            answer["services"] = self.services()
        if "counts" in ask["want"] and self.counting is not None:
            now = monotonic()
            answer["counting"] = now - self.counting.since
            answer["window"] = self.counting.window(now)
            answer["methods"] = self.counting.methods(now)
            answer["edges"] = self.counting.edges(now)
        if "failures" in ask["want"]:
            answer["failures"] = self.failures.latest(ask.get("failures", FAILURES_MAX), ask.get("services"))
        self.send(reply_to, correlation_id, fitted(answer))

    def tell(self, reply_to: str, correlation_id: str, happened: list[Happened], dropped: int) -> None:
        """Send what has happened."""
        tailed: Tailed = {
            "version": answers.VERSION,
            "process": self.process(),
            "happened": happened,
            "dropped": dropped,
        }
        self.send(reply_to, correlation_id, answers.written(tailed))

    def send(self, reply_to: str, correlation_id: str, body: bytes) -> None:
        channel = self.channel
        if channel is None or channel.closing or len(channel.unconfirmed) >= DUE_MAX:
            return
        properties = {
            "correlation_id": correlation_id,
            "content_type": "application/json",
            "delivery_mode": 1,
            "expiration": EXPIRATION,
        }
        try:
            header = encode_properties(properties)
            publishing = Publishing("", reply_to, False, header, body, forgotten, 0.0)
        except ValueError:
            return  # the asker's names are of no kind that AMQP carries
        channel.publish(publishing)

    # What is answered

    def process(self) -> Process:
        return {
            "id": self.id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self.since,
            "now": time.time(),
            "txservices": self.version,
            "python": platform.python_version(),
            "services": list(self.shared.containers),
            "failed": self.failures.number,
        }

    def services(self) -> list[Described]:
        told: dict[str, set[str]] = {}
        for service, event in self.events.told:
            told.setdefault(service, set()).add(event)
        return [
            service_of(each, told.get(each.service_name, set()))
            for each in observers.containers
            if each.shared is self.shared
        ]

    def count(self) -> None:
        """Count from now on, if that is not done already, until nobody has asked for a while."""
        if self.counting is None:
            self.counting = Counting(self.config, self.shared, self.connections)
            observers.add(self.counting)
            self.counted_until = self.clock.callLater(COUNTED, self.count_no_more)
        else:
            self.counted_until.reset(COUNTED)

    def count_no_more(self) -> None:
        if self.counting is not None:
            observers.remove(self.counting)
            self.counting = None
            if self.counted_until.active():
                self.counted_until.cancel()


def fitted(answer: Answer) -> bytes:
    """An answer as it travels, without the ends of its lists if it is too long."""
    body = answers.written(answer)
    parts: dict[str, Any] = answer  # type: ignore[assignment]  # its keys are not known one by one here
    for key in SHORTENED:
        while len(body) > answers.ANSWER_MAX and parts.get(key):
            parts[key] = parts[key][: len(parts[key]) // 2]
            parts["left_out"] = list(dict.fromkeys([*parts.get("left_out", ()), key]))
            body = answers.written(answer)
    return body
