"""Asks the processes of a fleet what they are, and has them tell what happens: the side of commands and pages.

Fleet.ask()   --Ask-->  the exchange  -->  each process  --Answer-->  our queue  -->  received  -->  Answers
Fleet.tail()  --Ask again and again, each a lease-->                 --Tailed-->      received  -->  told
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.exceptions import AmqpError, PublishError, UndeliverableMessage
from txservices.monitoring import answers
from txservices.monitoring.answers import Answer, Ask, Process, Tail, Tailed
from txservices.utils.ids import new_id

__all__ = ["Answers", "Fleet", "Tailing"]

FIRST_SPREAD = 0.2  # seconds by which answers are spread while nothing is known of the fleet
AT_ONCE = 10  # processes that are known and may answer all at once
SPREAD_EACH = 0.002  # seconds of that for each process that is known
SPREAD_MOST = 1.0  # seconds of it in all
QUIET = 1.0  # seconds without an answer, after which those that are missing are not waited for
WAIT_MAX = 10.0  # seconds that all answers to one ask are waited for
ANSWERS_MAX = 5000  # processes of a fleet whose answers are kept
UNREADABLE_MAX = 100  # complaints about answers that can't be read, of one ask
ASKED_MAX = 5.0  # seconds for the broker to take an ask; later it is of no use to a process
REPLIES_BYTES_MAX = 67_108_864  # bytes of answers that wait for us at the broker, 64 MiB
REPLIES_PREFETCH = 100  # answers under way to us at once
LEASE = 10.0  # seconds for which processes tell what happens, unless they are asked again
LEASE_RENEWED = 3.0  # seconds after which they are
TAIL_RATE = 200.0  # of what happens a second, from all processes together
UNREADABLE_SHOWN = 200  # characters of a complaint

log = Logger()


@define
class Answers:
    """The outcome of one ask.

    Attributes:
        answers: one of each process, those of the same services together.
        unreadable: a line for each message that was no answer, because it is of another version, or rubbish. It may
            have control characters in it.
        missing: the processes that have answered before, and that were asked and have not answered now.
    """

    answers: list[Answer] = field(factory=list)
    unreadable: list[str] = field(factory=list)
    missing: list[Process] = field(factory=list)


class Fleet:
    """All processes that share a broker.

    Args:
        connections: started, and stopped by whoever made them.

    Attributes:
        known: the processes that have answered, by their ids, until they miss an ask.
    """

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.clock = connections.clock
        self.known: dict[str, Process] = {}
        self.asking: dict[str, Asking] = {}
        self.tails: dict[str, Tailing] = {}
        self.exchange = Exchange(answers.EXCHANGE, type="topic")
        self.replies = connections.consume(
            Queue(
                durable=False,
                exclusive=True,
                auto_delete=True,
                arguments={"x-max-length-bytes": REPLIES_BYTES_MAX, "x-overflow": "drop-head"},
            ),
            self.received,
            REPLIES_PREFETCH,
        )

    def start(self) -> Deferred[None]:
        """Fires with None when the fleet can be asked.

        Fails with ``DeclarationMismatch`` if the broker's user may not declare what is needed, and with
        ``BrokerRefused`` and ``BrokerUnreachable``.
        """
        return Deferred.fromCoroutine(self.open())

    async def open(self) -> None:
        await self.replies.ready
        await self.connections.publisher.declare(self.exchange)

    def ask(
        self,
        *want: str,
        services: Iterable[str] = (),
        processes: Iterable[str] = (),
        failures: int | None = None,
    ) -> Deferred[Answers]:
        """Ask every process what it is, and also what is wanted, of ``answers.WANTS``. Fires with ``Answers``.

        That is when all that are known have answered, or when no more answers come. A process that is new is in the
        next ``Answers`` at the latest. Fails with ``PublishError`` and ``AmqpError`` if the broker does not take the
        ask. Cancelling it forgets the ask.

        Args:
            services: ask only those that have one of these services.
            processes: ask only those with one of these ids.
            failures: how many failures each is to tell, for the want ``failures``.
        """
        ask: Ask = {"version": answers.VERSION, "want": list(want)}
        if services:
            ask["services"] = list(services)
        if processes:
            ask["processes"] = list(processes)
        if failures is not None:
            ask["failures"] = failures
        return Deferred.fromCoroutine(self.ask_all(ask))

    async def ask_all(self, ask: Ask) -> Answers:
        expected = {key for key, process in self.known.items() if answers.is_asked(ask, process)}
        spread = min(len(expected) * SPREAD_EACH, SPREAD_MOST) if len(expected) > AT_ONCE else 0.0
        ask["spread"] = spread = spread if self.known else FIRST_SPREAD
        asking = Asking(self.clock, expected, spread + QUIET)
        asked = new_id()
        self.asking[asked] = asking
        try:
            await self.send(ask, asked)
            await asking.ended
        except UndeliverableMessage:  # no process listens
            asking.end()
        finally:
            del self.asking[asked]
            asking.end()
        missing = [self.known.pop(key) for key in expected - set(asking.answers) if key in self.known]
        told = sorted(asking.answers.values(), key=place_of)
        return Answers(told, asking.unreadable, sorted(missing, key=place))

    async def send(self, ask: Ask, asked: str) -> None:
        properties = {
            "reply_to": self.replies.queue_name,
            "correlation_id": asked,
            "content_type": "application/json",
            "delivery_mode": 1,
            "expiration": str(int(ASKED_MAX * 1000)),
        }
        body = answers.written(ask)
        key = f"ask.{answers.VERSION}"
        await self.connections.publisher.publish(self.exchange.name, key, body, properties, True, ASKED_MAX)

    def received(self, message: Message) -> None:
        message.ack()
        asked = message.properties.get("correlation_id", "")
        tailing = self.tails.get(asked)
        if tailing is not None:
            tailing.received(message.body)
            return
        asking = self.asking.get(asked)
        try:
            answer = answers.read_answer(message.body)
        except ValueError as error:
            if asking is not None and len(asking.unreadable) < UNREADABLE_MAX:
                asking.unreadable.append(f"an answer can't be read: {str(error)[:UNREADABLE_SHOWN]}")
            return
        process = answer["process"]
        if len(self.known) >= ANSWERS_MAX and process["id"] not in self.known:
            return
        self.known[process["id"]] = process  # also of one that comes too late for its ask: it is there
        if asking is not None:
            asking.received(answer)

    def tail(self, told: Callable[[Tailed], object], service: str = "", method: str = "") -> Tailing:
        """Have ``told`` called with what happens in the processes, until the ``Tailing`` is stopped.

        Args:
            service: only of that service.
            method: only of that method, or of events of that type.
        """
        tailing = Tailing(self, told, service, method)
        self.tails[tailing.id] = tailing
        tailing.renew()
        return tailing


class Asking:
    """One ask, until it has its answers."""

    def __init__(self, clock: Any, expected: set[str], seconds: float) -> None:
        self.clock = clock
        self.expected = set(expected)
        self.answers: dict[str, Answer] = {}
        self.unreadable: list[str] = []
        self.ended: Deferred[None] = Deferred()
        self.known = bool(expected)  # else nobody knows how many will answer
        self.timeout = clock.callLater(seconds, self.end)
        self.latest = clock.callLater(WAIT_MAX, self.end)

    def received(self, answer: Answer) -> None:
        key = answer["process"]["id"]
        self.answers[key] = answer
        self.expected.discard(key)
        if self.timeout.active() and self.timeout.getTime() < self.clock.seconds() + QUIET:
            self.timeout.reset(QUIET)
        if self.known and not self.expected:
            self.end()

    def end(self) -> None:
        for call in (self.timeout, self.latest):
            if call.active():
                call.cancel()
        if not self.ended.called:
            self.ended.callback(None)


class Tailing:
    """Has what happens told. Processes stop by themselves when they are not asked again.

    Attributes:
        processes: those that tell, by their ids.
        dropped: how many things happened that were not told, because they were too many.
        unreadable: how many messages could not be read.
    """

    def __init__(self, fleet: Fleet, told: Callable[[Tailed], object], service: str, method: str) -> None:
        self.fleet = fleet
        self.told = told
        self.service = service
        self.method = method
        self.id = new_id()
        self.processes: dict[str, Process] = {}
        self.dropped = self.unreadable = 0
        self.failed = False
        self.renewal: Any = None

    def renew(self) -> None:
        """Ask again, now and every few seconds."""
        fleet = self.fleet
        rate = TAIL_RATE / max(len(self.processes), 1)
        tail: Tail = {"service": self.service, "method": self.method, "seconds": LEASE, "rate": rate}
        ask: Ask = {"version": answers.VERSION, "want": ["tail"], "tail": tail}
        if self.service:
            ask["services"] = [self.service]
        asking = Deferred.fromCoroutine(fleet.send(ask, self.id))
        asking.addCallbacks(self.asked, self.not_asked)
        self.renewal = fleet.clock.callLater(LEASE_RENEWED, self.renew)

    def asked(self, _: None) -> None:
        self.failed = False

    def not_asked(self, failure: Any) -> None:
        failure.trap(AmqpError, PublishError)
        if not self.failed and not failure.check(UndeliverableMessage):
            self.failed = True
            log.warn("the fleet can't be asked: {error}", error=failure.value)

    def received(self, body: bytes) -> None:
        try:
            tailed = answers.read_tailed(body)
        except ValueError:
            self.unreadable += 1
            return
        process = tailed["process"]
        if len(self.processes) < ANSWERS_MAX:
            self.processes[process["id"]] = process
        self.dropped += max(tailed["dropped"], 0)
        self.told(tailed)

    def stop(self) -> None:
        """Have nothing told any more."""
        self.renewal.cancel()
        self.fleet.tails.pop(self.id, None)


def place_of(answer: Answer) -> tuple[list[str], str, int]:
    return place(answer["process"])


def place(process: Process) -> tuple[list[str], str, int]:
    return process["services"], process["host"], process["pid"]
