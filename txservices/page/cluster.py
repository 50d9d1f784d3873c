"""The cluster behind the page: asks the fleet and the queues for the state, and does what a person asks for.

Watch -> state() -> Fleet.ask(), Depths -> Picture.state()
POST  -> call(), look(), replay(), discard()
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import CancelledError, DeferredLock

from txservices.amqp.connections import Connections
from txservices.amqp.entities import Message
from txservices.exceptions import AmqpError, PublishError
from txservices.monitoring.fleet import Fleet
from txservices.page.depths import Depths, Listing, Lists, queues_of
from txservices.page.picture import Picture
from txservices.page.server import Page, Refused
from txservices.retry import marks
from txservices.retry.failures import PARKED
from txservices.retry.parked import NoParkingQueue, Parked, Selection, Tally, parking_name
from txservices.standalone.rpc import ClusterRpcProxy
from txservices.utils.secrets import hide

CALL_TIMEOUT = 30.0  # seconds for a method that is called from the page
RESULT_SHOWN = 100_000  # characters of a result, or of an error's text
PARKED_SHOWN = 100  # messages of a parking queue, the oldest
BODY_SHOWN = 2_000  # characters of a parked message
QUEUES_SHOWN = 300  # those with most messages
FAILURES_ASKED = 20  # of a process, when it has new ones
ASKED_FOR_FAILURES = 100  # processes in one round
FLEET_SMALL = 50  # processes that tell with each answer what their services are
SERVICES_AGAIN = 10.0  # seconds after which those of larger fleets are asked for that again


class ClusterPage:
    """The page of all that is on one broker.

    Args:
        config: that of a service of this cluster. It has an ``AMQP_URI``.
        lists: gives all queues as RabbitMQ's management lists them, if it is known where that is.
    """

    def __init__(self, config: Mapping[str, Any], clock: Any, lists: Lists | None = None) -> None:
        self.config = config
        self.clock = clock
        self.connections = Connections.from_config(config, clock)
        self.fleet = Fleet(self.connections)
        self.depths = Depths(self.connections) if lists is None else Listing(lists, self.connections)
        self.picture = Picture()
        self.asked_services = 0.0
        self.proxy: ClusterRpcProxy | None = None
        self.cluster: Any = None
        self.alone = DeferredLock()  # one that works on parked messages hides them from others
        doings = {"/call": self.call, "/parked": self.look, "/replay": self.replay, "/discard": self.discard}
        self.page = Page(config, self.state, self.picture.failure, doings, clock)

    @property
    def address(self) -> str:
        """Where to open it, with the token."""
        return self.page.address

    async def start(self, host: str, port: int | None) -> None:
        """Open the port, and connect.

        ``CannotListenError`` if the port can't be opened, ``CommandError`` if the management doesn't answer, and the
        errors of ``Fleet.start``.
        """
        self.page.listen(host, port)
        self.connections.startService()
        await self.fleet.start()
        if isinstance(self.depths, Listing):
            await self.depths.look()

    async def stop(self) -> None:
        """Close the port and the connections."""
        await self.page.stop()
        self.depths.cancel()
        if self.proxy is not None:
            await self.proxy.stop()
        await self.connections.stopService()

    # The state

    async def state(self) -> dict[str, Any]:
        """The state of everything, as ``page.js`` takes it."""
        begun = self.clock.seconds()
        away = await self.ask()
        now = time.time()
        return {
            "at": now,
            "asked": self.clock.seconds() - begun,
            "broker": {"address": ", ".join(map(str, self.connections.addresses)), "away": away},
            **self.picture.state(),
            **self.queues(),
        }

    async def ask(self) -> str:
        """Ask the fleet. Gives why it can't be asked, or nothing."""
        if not self.connections.connected:
            return "trying again until there is one"
        try:
            want = ["counts"]
            if self.wants_services():
                want.append("services")
            told = await self.fleet.ask(*want)
            self.picture.add(told.answers, time.time())
            new = self.picture.with_new_failures()[:ASKED_FOR_FAILURES]
            if new:
                told = await self.fleet.ask("failures", processes=new, failures=FAILURES_ASKED)
                self.picture.add(told.answers, time.time(), whole=False)
        except (AmqpError, PublishError) as error:
            return hide(str(error))
        return ""

    def wants_services(self) -> bool:
        now = self.clock.seconds()
        if (
            len(self.fleet.known) > FLEET_SMALL
            and not self.picture.services_unknown()
            and now - self.asked_services < SERVICES_AGAIN
        ):
            return False
        self.asked_services = now
        return True

    def queues(self) -> dict[str, Any]:
        """What is in the queues, and in those of parked messages."""
        consumed = queues_of(self.picture.entrypoints())
        self.depths.begin_look(consumed)
        found = sorted(self.depths.found.items(), key=lambda item: (-item[1].messages, item[0]))
        queues = [
            {"name": name, "messages": depth.messages, "consumers": depth.consumers, "service": consumed.get(name, "")}
            for name, depth in found
            if not name.endswith(PARKED)
        ]
        return {
            "queues": queues[:QUEUES_SHOWN],
            "more_queues": max(len(queues) - QUEUES_SHOWN, 0),
            "queues_by_management": isinstance(self.depths, Listing),
            "queues_problem": self.depths.problem,
            "parked": [{"queue": name, "messages": depth.messages} for name, depth in found if name.endswith(PARKED)],
        }

    # What is done

    async def call(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Call a method, and give its result or its error as text."""
        service, method, text = (text_of(asked, name) for name in ("service", "method", "arguments"))
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"the arguments are no JSON: {error}") from None
        if not isinstance(arguments, (list, dict)) or not method or method.startswith("_"):
            raise Refused(400, "give a method, and its arguments as an array or an object")
        args, kwargs = (arguments, {}) if isinstance(arguments, list) else ([], arguments)
        begun = self.clock.seconds()
        try:
            cluster = await self.callable()
            result = await getattr(cluster[service], method)(*args, **kwargs)
        except CancelledError:
            raise
        except Exception as error:
            answer = cut(hide(str(error)))
            return {"error": type(error).__name__, "text": answer[0], "cut": answer[1], "seconds": self.since(begun)}
        answer = cut(json.dumps(result, ensure_ascii=False, indent=2, default=repr))
        return {"result": answer[0], "cut": answer[1], "seconds": self.since(begun)}

    async def callable(self) -> Any:
        """A proxy of all services. It is made at the first call."""
        if self.cluster is None:
            self.proxy = ClusterRpcProxy(self.config, timeout=CALL_TIMEOUT, clock=self.clock)
            try:
                self.cluster = await self.proxy.start()
            finally:
                if self.cluster is None:
                    self.proxy = None
        return self.cluster

    def since(self, begun: float) -> float:
        seconds: float = self.clock.seconds() - begun
        return seconds

    async def look(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The oldest messages of a parking queue."""
        found: list[dict[str, Any]] = []
        tally = Tally()

        async def work(parked: Parked, queue: str) -> None:
            def see(message: Message) -> None:
                found.append(shown(message))
                if len(found) == PARKED_SHOWN:
                    parked.cancel()

            await parked.look(queue, Selection(), see, tally)

        await self.at_parked(asked, work)
        return {"messages": found, "more": max(tally.there - len(found), 0)}

    async def replay(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Have parked messages handled again."""
        tally, selection = Tally(), selected(asked)
        await self.at_parked(asked, lambda parked, queue: parked.replay(queue, selection, tally))
        return outcome(tally)

    async def discard(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Delete parked messages."""
        tally, selection = Tally(), selected(asked)
        await self.at_parked(asked, lambda parked, queue: parked.discard(queue, selection, tally))
        return outcome(tally)

    async def at_parked(self, asked: dict[str, Any], work: Callable[[Parked, str], Awaitable[None]]) -> None:
        queue = parking_name(text_of(asked, "queue"))
        await self.alone.acquire()
        try:
            await work(Parked(self.connections, self.config), queue)
        except NoParkingQueue as error:
            raise Refused(404, str(error)) from None
        except (AmqpError, PublishError) as error:
            raise Refused(502, hide(str(error))) from None
        finally:
            self.alone.release()


def text_of(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise Refused(400, f"{name} is no text")
    return value


def selected(asked: Mapping[str, Any]) -> Selection:
    """The messages that are meant: those with these ids, or all, which has to be said."""
    ids, all_of_it = asked.get("ids"), asked.get("all")
    if all_of_it is True and ids is None:
        return Selection()
    if all_of_it or not isinstance(ids, list) or not ids or not all(isinstance(each, str) for each in ids):
        raise Refused(400, "say which messages: ids, a list of texts, or all")
    return Selection(frozenset(ids))


def outcome(tally: Tally) -> dict[str, Any]:
    stayed = dict(tally.stayed)
    if tally.unreadable:
        stayed["they can't be read here"] = tally.unreadable
    return {"done": tally.done, "stayed": stayed}


def cut(text: str) -> tuple[str, int]:
    """The beginning of a text, and how many characters are left out."""
    return text[:RESULT_SHOWN], max(len(text) - RESULT_SHOWN, 0)


def shown(message: Message) -> dict[str, Any]:
    """A parked message for a person."""
    why = marks.Why.of(message)
    try:
        body = message.body.decode()
        body = body if len(body) <= BODY_SHOWN else f"{body[:BODY_SHOWN]}… ({message.size:,} bytes)"
    except UnicodeDecodeError:
        body = f"{message.size:,} bytes that are no text"
    return {
        "id": message.properties.get("message_id"),
        "reason": why.reason,
        "error": why.error,
        "attempts": why.attempts,
        "since": why.at,
        "ago": ago(why.at),
        "body": body,
    }


def ago(at: str) -> float | None:
    """Seconds since a time in ISO 8601; None if it is no time."""
    try:
        return (datetime.now(timezone.utc) - datetime.fromisoformat(at)).total_seconds()
    except (TypeError, ValueError):
        return None
