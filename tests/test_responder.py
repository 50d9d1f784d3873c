"""Replies, and what becomes of the requests that they answer."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.logger import capturedLogs, globalLogPublisher
from twisted.trial.unittest import TestCase

from txservices.callids import this_worker
from txservices.exceptions import (
    ChannelClosedByBroker,
    ConnectionLost,
    PublishBufferFull,
    PublishNacked,
    PublishTimeout,
)
from txservices.responder import REPLY_TIMEOUT, Responder
from txservices.serialization import Serializers
from txservices.utils.waiting import Unconfirmed

ERROR = (ValueError, ValueError("failed"), None)  # of a method


class ResponderTests(TestCase):
    """The end of a request depends on the end of its reply."""

    def test_settled(self) -> None:
        """A request is acked with its reply, with the refusal in its place, or when its caller waits no longer. It is
        rejected if the refusal is refused as well, and goes back if its reply did not get out.

        A nacked reply is published again, and its request is done, so that it keeps no other away. A reply is not
        mandatory, since its caller may have gone.
        """
        refusal, nack, late = (
            ChannelClosedByBroker(406, "no"),
            PublishNacked("", "caller"),
            PublishTimeout("", "caller"),
        )
        table: list[tuple[list[Exception | None], list[str]]] = [
            ([None], ["ack"]),
            ([refusal, None], ["ack"]),
            ([refusal, refusal], ["reject"]),
            ([ConnectionLost("stopped")], ["requeue"]),
            ([late], ["ack"]),
            ([nack, None], ["ack"]),
            ([nack, nack], ["ack"]),
            ([nack, late], ["ack"]),
            ([nack, PublishBufferFull(1, 1)], ["ack"]),
            ([nack, ConnectionLost("stopped")], ["ack"]),
        ]
        for outcomes, expected in table:
            settled, ways = self.replied(outcomes, {})
            self.assertEqual(settled, expected, outcomes)
            self.assertEqual([way[:-2] for way in ways], [("replies", "caller", False, REPLY_TIMEOUT)] * len(outcomes))
            # only the first publish is told of a nack: the next is repeated until its time is up
            self.assertEqual([way[-1] for way in ways], [False, True][: len(outcomes)])
            # a reply that holds its request is taken where there is no room, one whose request is done is not
            self.assertEqual([way[-2] for way in ways], [True, outcomes[0] is refusal][: len(outcomes)])

    def test_deadline(self) -> None:
        """A reply has the time that its caller waits, which is the request's expiration in milliseconds."""
        table = [("1500", 1.5), ("0", 0.0), (None, REPLY_TIMEOUT), ("soon", REPLY_TIMEOUT), ("9" * 400, REPLY_TIMEOUT)]
        for expiration, seconds in table:
            for outcomes in ([None], [PublishNacked("", "caller"), None], [ChannelClosedByBroker(406, "no"), None]):
                _, ways = self.replied(outcomes, {"expiration": expiration})
                self.assertEqual([way[3] for way in ways], [seconds] * len(outcomes), expiration)

    def test_late(self) -> None:
        """The log tells of a call whose caller's time is up, and not of a reply that arrives after all."""
        late = PublishTimeout("replies", "caller")
        for outcomes, told in (([late], ["a.b"]), ([PublishNacked("", "caller"), late], ["a.b"]), ([None], [])):
            with capturedLogs() as events:
                self.replied(outcomes, {})
            lines = [event for event in events if "its caller's time is up" in event["log_format"]]
            self.assertEqual([event["call"] for event in lines], told)
            self.assertEqual([event["error"] for event in lines], [late] * len(told))

    def test_told(self) -> None:
        """Whatever the log tells of a reply that was not taken is told on behalf of the worker whose reply it is."""
        told: list[Any] = []
        observe = lambda event: told.append((event["log_level"].name, this_worker.get()))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        worker: Any = SimpleNamespace(unconfirmed=Unconfirmed())
        refusal, nack, late = ChannelClosedByBroker(406, "no"), PublishNacked("", "x"), PublishTimeout("", "x")
        for outcomes in ([refusal, refusal], [ConnectionLost("stopped")], [late], [nack, late]):
            self.replied(outcomes, {}, worker)
        worker.unconfirmed.failed = [SimpleNamespace(lost=late)]
        self.replied([None], {}, worker)
        levels = ["error", "error", "error", "warn", "warn", "warn"]
        self.assertEqual(told, [(level, worker) for level in levels])

    def test_what_its_method_published(self) -> None:
        """However its reply ends, a request is not acked before the broker has what its method published.

        It goes back if that has failed. A request for which no reply is wanted is no different.
        """
        refusal, nack = ChannelClosedByBroker(406, "no"), PublishNacked("", "x")
        wanted: dict[str, Any] = {}
        for outcomes, properties in (
            ([None], wanted),
            ([nack, None], wanted),
            ([PublishTimeout("", "x")], wanted),
            ([refusal, None], wanted),
            ([], {"reply_to": None}),
            ([], {"reply_to": ""}),
        ):
            for failed, expected in (([], "ack"), ([SimpleNamespace(lost=ConnectionLost("cut"))], "requeue")):
                worker: Any = SimpleNamespace(unconfirmed=Unconfirmed())
                worker.unconfirmed.add()
                settled, _ = self.replied(outcomes, properties, worker)
                self.assertEqual(settled, [], outcomes)
                worker.unconfirmed.failed = failed
                worker.unconfirmed.remove()
                self.assertEqual(settled, [expected], outcomes)

    def replied(
        self, outcomes: list[Any], properties: dict[str, Any], worker: Any = None
    ) -> tuple[list[str], list[tuple[str, str, bool, float, bool, bool]]]:
        """Answer a request by publishes with these outcomes: how it is settled, and how each is published."""
        settled: list[str] = []
        ways: list[tuple[str, str, bool, float, bool, bool]] = []

        def publish_then(exchange, key, body, properties, mandatory, done, timeout, always=False, retry_nacked=True):
            ways.append((exchange, key, mandatory, timeout, always, retry_nacked))
            done(outcomes[len(ways) - 1])

        message: Any = SimpleNamespace(
            properties={"reply_to": "caller", **properties},
            routing_key="a.b",
            ack=partial(settled.append, "ack"),
            reject=lambda requeue=False: settled.append("requeue" if requeue else "reject"),
        )
        connections: Any = SimpleNamespace(publisher=SimpleNamespace(publish_then=publish_then))
        responder = Responder(connections, "replies", Serializers({}), lambda message: message.reject(requeue=True))
        responder.send_response(message, worker, 1, ERROR if worker else None)
        return settled, ways
