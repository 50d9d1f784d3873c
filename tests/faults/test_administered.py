"""A RabbitMQ that refuses, and is administered under its clients. Numbers are the faults'."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from tests.faults.scene import BACK, Echo, FaultsCase, until
from tests.services import Recorded
from txservices.amqp.connections import Connections
from txservices.amqp.entities import Exchange, Queue
from txservices.events import event_handler
from txservices.exceptions import (
    BrokerRefused,
    ChannelClosedByBroker,
    DeclarationMismatch,
    PublishNacked,
    PublishTimeout,
    RemoteError,
    UnknownService,
)
from txservices.messaging import Publisher, consume
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

JSON = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
TELLS = Exchange("tells", type="topic")
HEARS = Queue("hears", TELLS, "#")
FULL_QUEUE = Queue("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
users = itertools.count(1)


class Administered(FaultsCase):
    """An administrator deletes, closes and forbids things."""

    async def test_row_15_consumed_queue_deleted(self) -> None:
        """The queue is declared again with its binding, consumed again, and that is said."""
        got = Heard()

        class Listener:
            name = "listener"

            @event_handler("teller", "told")
            def told(self, value: str) -> None:
                got(value)

        (container,) = await self.start(Listener)
        said = self.logged("was deleted on the broker")
        back = Heard()
        container.entrypoints[0].consumer.on_ready.append(back)
        await self.delete_queue("evt-teller-told--listener.told")
        await back.wait()
        self.assertEqual(len(said.things), 1)
        await self.bare().publisher.publish("teller.events", "told", b'"again"', dict(JSON), mandatory=True)
        self.assertEqual(await got.wait(), ["again"])

    async def test_row_16_connections_closed(self) -> None:
        """All connections closed by an administrator come back within two seconds, and calls under way end well."""
        await self.start(Echo)
        cluster = await self.cluster()
        closed = self.logged("by a test's hand")
        closing = self.broker.ctl("close_all_connections", "--vhost", self.vhost, "by a test's hand")
        calls: list[int] = []
        while not closed.things:
            calls.append(await cluster.echo.echo(len(calls)))
        began = reactor.seconds()
        self.assertEqual(await cluster.echo.echo("back"), "back")
        self.in_time(began, BACK)
        self.assertEqual(calls, list(range(len(calls))))
        await closing

    async def test_row_16_channel_closed(self) -> None:
        """A channel that is closed by an error is made again, and its connection and the others stay."""
        connections = self.bare()
        recorded, other = Recorded(), Recorded()
        consumer = connections.consume(HEARS, recorded, 10)
        untouched = connections.consume(Queue("other"), other, 10)
        await gatherResults([consumer.ready, untouched.ready])
        back = Heard()
        consumer.on_ready.append(back)
        protocol, channel = connections.consuming.protocol, untouched.channel
        await consumer.channel.basic_ack(delivery_tag=1000)
        await back.wait()
        self.assertIs(connections.consuming.protocol, protocol)
        self.assertIs(untouched.channel, channel)
        await connections.publisher.publish("tells", "k", b"", {})
        await connections.publisher.publish("", "other", b"", {})
        await gatherResults([recorded.wait(), other.wait()])

    async def test_row_17_refused_publishes(self) -> None:
        """Publishes to an exchange that is not there fail alone: those of other workers meanwhile are confirmed."""

        class Publishes:
            name = "publishes"
            good = Publisher(exchange=TELLS)
            bad = Publisher(exchange=Exchange("gone"))

            @rpc
            async def publish(self, number: int) -> str:
                if number % 10:
                    await self.good(number, routing_key="k")
                    return "confirmed"
                try:
                    await self.bad(number, routing_key="k")
                except ChannelClosedByBroker as error:
                    return error.text
                return "no error"

        await self.start(Publishes, max_workers=50)
        cluster = await self.cluster()
        recorded = Recorded()
        await self.past_the_proxy().consume(HEARS, recorded, 100).ready
        channel = await (await self.past_the_proxy().consuming.when_connected()).open_channel()
        await channel.exchange_delete(exchange="gone")
        answers = await gatherResults([cluster.publishes.publish(number) for number in range(50)])
        for number, answer in enumerate(answers):
            self.assertIn("confirmed" if number % 10 else "no exchange 'gone'", answer)
        await recorded.wait(45)
        self.assertEqual({message.body for message in recorded.things}, {b"%d" % n for n in range(50) if n % 10})

    async def test_row_18_queue_with_other_arguments(self) -> None:
        """A service whose queue exists with other arguments does not start, and says which differ."""
        await self.past_the_proxy().publisher.declare(
            Queue("evt-teller-told--listener.told", arguments={"x-max-length": 5}), Queue("rpc-echo", durable=False)
        )

        class Listener:
            name = "listener"

            @event_handler("teller", "told")
            def told(self, value: str) -> None:
                pass

        for service, difference in ((Listener, "x-max-length"), (Echo, "durable")):
            error = await self.assertFailure(Deferred.fromCoroutine(self.start(service)), DeclarationMismatch)
            self.assertIn(difference, str(error))

    async def test_row_20_nack(self) -> None:
        """A message that a full queue rejects is published again until its deadline. Then it fails with PublishNacked,
        and nothing of it is kept."""
        connections = self.bare()
        await connections.publisher.declare(FULL_QUEUE)
        self.assertTrue(await self.rejected(connections, 0.5))
        self.assertEqual((connections.publisher.unconfirmed, connections.publisher.unconfirmed_bytes), ({}, 0))

    async def test_row_20_nack_and_then_room(self) -> None:
        """A rejected message is confirmed once there is room, and is there once, under its own id."""
        connections = self.bare()
        await connections.publisher.declare(FULL_QUEUE)
        while not await self.rejected(connections, 0.5):
            pass
        waiting = connections.publisher.publish("", "full", b"late", {"message_id": "late"})
        await until(lambda: connections.publisher.nacked)
        recorded = Recorded()
        await self.past_the_proxy().consume(FULL_QUEUE, recorded, 10).ready
        await waiting
        await until(lambda: b"late" in [message.body for message in recorded.things])
        self.assertEqual([m.properties["message_id"] for m in recorded.things if m.body == b"late"], ["late"])

    async def rejected(self, connections: Connections, timeout: float) -> list[Any]:
        """Those of five publishes that were nacked until then."""
        publishes = [connections.publisher.publish("", "full", b"", {}, timeout=timeout) for _ in range(5)]
        outcomes = await DeferredList(publishes, consumeErrors=True)
        failures = [failure for succeeded, failure in outcomes if not succeeded]
        for failure in failures:
            failure.trap(PublishNacked)
        return failures

    async def test_row_20_no_confirm(self) -> None:
        """A confirm that does not come fails the publish at its deadline; nothing is kept, and the next one is fine."""
        connections = self.bare()
        await connections.publisher.declare(HEARS)
        self.proxy.freeze(up=False, down=True)
        await self.assertFailure(connections.publisher.publish("tells", "k", b"x", {}, timeout=0.3), PublishTimeout)
        self.assertEqual((connections.publisher.unconfirmed, connections.publisher.unconfirmed_bytes), ({}, 0))
        self.proxy.heal()
        await connections.publisher.publish("tells", "k", b"y", {})
        self.assertEqual(connections.publisher.channel.unconfirmed, {})

    async def test_row_21_unroutable_call(self) -> None:
        """A call of a service that nobody runs fails in a moment, not at its deadline."""
        cluster = await self.cluster()
        began = reactor.seconds()
        error = await self.assertFailure(cluster.nobody.method(), UnknownService)
        self.assertIn("nobody", str(error))
        self.in_time(began, BACK)

    async def test_row_22_undecodable_bodies(self) -> None:
        """Each goes to the queue's dead letters, its reason in the log; the good ones between them are handled."""
        got, dead = Heard(), Recorded()
        letters = Queue("letters", Exchange("dead", type="fanout"))
        await self.past_the_proxy().consume(letters, dead, 10).ready

        class Reader:
            name = "reader"

            @consume(Queue("read", arguments={"x-dead-letter-exchange": "dead"}))
            def read(self, value: Any) -> None:
                got(value)

        await self.start(Reader)
        said = self.logged("rejected")
        connections = self.bare()
        bad = [
            (b"{", JSON),
            (b"\xff", JSON),
            (b"x", {**JSON, "content_type": "application/x-python-serialize"}),
            (b"x", {**JSON, "headers": {"compression": "application/x-gzip"}}),
            (b"x", {**JSON, "content_type": "nonsense"}),
        ]
        for number, (body, properties) in enumerate(bad):
            await connections.publisher.publish("", "read", body, dict(properties))
            await connections.publisher.publish("", "read", b"%d" % number, dict(JSON))
        self.assertEqual(await got.wait(5), [0, 1, 2, 3, 4])
        await dead.wait(5)
        self.assertEqual([message.body for message in dead.things], [body for body, _ in bad])
        self.assertEqual({message.headers["x-death"][0]["reason"] for message in dead.things}, {"rejected"})
        self.assertEqual(len(said.things), 5)

    async def test_row_24_reply_that_cannot_be_written(self) -> None:
        """The caller is told that the result can't be serialised, and the next call is answered."""

        class Odd:
            name = "odd"

            @rpc
            def give(self, well: bool) -> Any:
                return "well" if well else object()

        await self.start(Odd)
        cluster = await self.cluster()
        error = await self.assertFailure(cluster.odd.give(False), RemoteError)
        self.assertEqual(error.exc_type, "UnserializableValueError")
        self.assertEqual(await cluster.odd.give(True), "well")

    async def test_row_32_wrong_credentials(self) -> None:
        """A wrong password or virtual host fails the start at once, with what to look at and without the password."""
        for user, password, vhost in (("guest", "s3cret", self.vhost), ("guest", "guest", "nowhere")):
            config = {"AMQP_URI": self.broker.uri(vhost, user, password)}
            error = await self.assertFailure(Deferred.fromCoroutine(self.start(Echo, **config)), BrokerRefused)
            self.assertIn("check user, password and virtual host", str(error))
            self.assertNotIn("s3cret", str(error))

    async def test_row_32_credentials_revoked(self) -> None:
        """A password that is changed under a service: a slow back-off, no password in the log, publishes fail typed."""
        user = f"user-{next(users)}"
        await self.broker.ctl("add_user", user, "s3cret-1")
        await self.broker.ctl("set_permissions", "-p", self.vhost, user, ".*", ".*", ".*")
        config = {"AMQP_URI": self.proxy.uri(self.broker.uri(self.vhost, user, "s3cret-1"))}
        connections = self.connected(config)
        await connections.publisher.declare(HEARS)
        await self.broker.ctl("change_password", user, "s3cret-2")
        lines = self.logged("no connection to the broker|s3cret")
        self.proxy.cut(reset=True)
        await lines.wait(2)
        self.assertRegex(lines.things[1], r"ACCESS_REFUSED.*Trying again in 30\.0 s")
        self.assertNotIn("s3cret", "".join(lines.things))
        await self.assertFailure(connections.publisher.publish("tells", "k", b"", {}, timeout=0.2), PublishTimeout)
