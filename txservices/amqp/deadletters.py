"""Quorum queues whose dead letters are parked.

RabbitMQ takes a message out of a quorum queue when it has come back too often: more than ``x-delivery-limit`` times,
or more than 20 times if there is no such argument and it is RabbitMQ 4. That happens to a message which kills the
process that handles it. Without dead letters it is lost then.

An argument of an existing queue can't be changed, so a queue that exists otherwise is used as it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from shlex import quote
from typing import Any

from attrs import evolve
from twisted.logger import Logger

from txservices.amqp.entities import Queue
from txservices.amqp.protocol import Protocol
from txservices.amqp.topology import declare
from txservices.constants import QUEUE_TYPE_ARGUMENT
from txservices.exceptions import DeclarationMismatch, RefusedForNow

__all__ = ["DeadLetters"]

log = Logger()

# With any of these, a queue has dead letters of its own.
OWN = ("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy")
# With any of these, what comes to a full queue is the author's to say, and the safe strategy would change that.
OF_FULL_QUEUES = ("x-overflow", "x-max-length", "x-max-length-bytes")
REFUSED = (DeclarationMismatch, RefusedForNow)  # and not what RabbitMQ says to one that comes while it deletes a queue


class DeadLetters:
    """Declares one queue so that the broker parks what it takes out of it, or so that it does not.

    Whether it does may have been another when the queue was made: then the queue is used as it stands, and the log says
    once how to change that.

    Args:
        queue: without arguments about dead letters.
        parking: where they go to. It is declared before the queue.
        wanted: whether they are to go there.
        vhost: for the log.
    """

    def __init__(self, queue: Queue, parking: Queue, wanted: bool, vhost: str) -> None:
        self.queue = queue
        self.parking = parking
        self.wanted = wanted
        self.vhost = vhost
        self.told = False

    @staticmethod
    def fits(queue: Queue) -> bool:
        """Whether we say where a queue's dead letters go: if it is a quorum queue that does not say so itself."""
        return (
            queue.arguments.get(QUEUE_TYPE_ARGUMENT) == "quorum"
            and not queue.passive
            and not any(name in queue.arguments for name in OWN)
        )

    async def declare(self, protocol: Protocol, patience: float) -> Queue:
        """Declare the queue on a connection. Gives it with the arguments that it has.

        Errors are those of ``topology.declare`` for the queue without dead letters.
        """
        plain, parks = self.queue, self.with_dead_letters()
        if not self.wanted:
            try:
                await declare(protocol, plain, patience=patience)
                return plain
            except DeclarationMismatch:  # does it exist with dead letters, from an earlier time?
                try:
                    await declare(protocol, parks, patience=patience)
                    return parks
                except REFUSED:
                    pass
                raise
        try:
            await self.declare_parking(protocol, patience)
            await declare(protocol, parks, patience=patience)
            return parks
        except REFUSED as error:
            await declare(protocol, plain, patience=patience)
            self.tell(error)
            return plain

    async def declare_parking(self, protocol: Protocol, patience: float) -> None:
        try:
            await declare(protocol, self.parking, patience=patience)
        except DeclarationMismatch:  # it takes dead letters also if it has other arguments, or is not ours to declare
            await declare(protocol, evolve(self.parking, passive=True), patience=patience)

    def with_dead_letters(self) -> Queue:
        arguments = self.queue.arguments
        return evolve(
            self.queue, arguments={**arguments, **{f"x-{name}": value for name, value in self.settings().items()}}
        )

    def settings(self) -> Mapping[str, Any]:
        """What a policy would have to say.

        The broker hands on at least once what it takes out of the queue, and keeps it until the parking queue has it on
        its disk; RabbitMQ can do that if a full queue refuses messages, and does not drop its oldest.
        """
        settings = {"dead-letter-exchange": "", "dead-letter-routing-key": self.parking.name}
        if any(name in self.queue.arguments for name in OF_FULL_QUEUES):
            return settings
        return {**settings, "dead-letter-strategy": "at-least-once", "overflow": "reject-publish"}

    def tell(self, error: Exception) -> None:
        """Say once that dead letters are not parked, and the command that changes it."""
        if self.told:
            return
        self.told = True
        name = self.queue.name
        pattern = f"^{re.escape(name)}$".replace("\\-", "-")  # a hyphen needs no escape, and most names have some
        words = ["rabbitmqctl", "set_policy", "-p", self.vhost, f"parked-{name}", pattern]
        words += [json.dumps(self.settings()), "--apply-to", "queues"]
        log.warn(
            "queue {queue} is used as it stands: messages that the broker takes out of it, as those that have come back"
            " too often, are not parked in {parking} ({error}). Unless a policy does that already, give it one:"
            " {command}",
            queue=name,
            parking=self.parking.name,
            error=error,
            command=" ".join(map(quote, words)),
        )
