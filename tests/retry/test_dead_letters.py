"""Dead letters of quorum queues: what the broker takes out of them is parked, with its reason, and is replayed."""

from __future__ import annotations

import shlex
from typing import Any

from twisted.internet.defer import Deferred

from tests.retry.test_parked import ALL, PARKING, ParkedCase
from tests.retry.test_retries import FAILED, HEARD, Context, RetriesCase, failing
from tests.services import OnRabbitMQ
from txservices.amqp.entities import Exchange, Message, Queue
from txservices.amqp.subscription import Subscription
from txservices.command.shown import brief, whole
from txservices.exceptions import DeclarationMismatch, RemoteError
from txservices.messaging import consume
from txservices.page.cluster import shown
from txservices.retry import Retry, marks
from txservices.retry.failures import RETURNS_MAX
from txservices.retry.parked import Tally
from txservices.rpc import rpc
from txservices.testing.waiting import Heard

QUORUM = {"x-queue-type": "quorum"}
LIMITED = {**QUORUM, "x-delivery-limit": 2}
POLICY = Retry(attempts=3, delay=0.02)
DEAD_LETTERS = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": PARKING}
PARKS = {**DEAD_LETTERS, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
BACK = "back"  # the message comes back to its queue, as after the death of the process that handles it


def listener(heard: Heard, *outcomes: Any, arguments: dict[str, Any] = LIMITED, **options: Any) -> type:
    """A service whose messages come back, or fail, or are handled, one after the other; then as the last again."""
    left = list(outcomes)

    class Listener:
        name = "listener"
        context = Context()

        @consume(Queue("work", Exchange("orders"), "new", arguments=arguments), **options)
        def work(self, data):
            heard((data, self.context))
            outcome = left.pop(0) if len(left) > 1 else left[0]
            if outcome == BACK:
                self.context.message.reject(requeue=True)
            elif outcome is not None:
                raise outcome

    return Listener


def answering(heard: Heard, **options: Any) -> type:
    """A service that answers calls."""

    class Listener:
        name = "listener"
        context = Context()

        @rpc(**options)
        def call(self):
            heard(self.context)

    return Listener


class DeadLetterTests(ParkedCase, RetriesCase):
    """A queue whose entrypoint parks has its dead letters parked."""

    async def publish(self, message_id: str = "one") -> None:
        properties = {"message_id": message_id, "content_type": "application/json", "headers": {"plain": 5}}
        await self.connections().publisher.publish("orders", "new", b"1", properties, True)

    async def dead(self, queue: str = PARKING) -> list[Message]:
        """The messages of a parking queue, once there is one."""
        while not (await self.summary(queue)).count:  # asks the broker
            pass
        messages: list[Message] = []
        await self.operations().look(queue, ALL, messages.append, Tally())
        return messages

    async def test_delivery_limit(self) -> None:
        """A message that comes back too often is parked, told of, and replayed as if for the first time."""
        heard = Heard()
        await self.start(listener(heard, *[BACK] * 3, None, retry=POLICY))
        await self.publish()
        (message,) = await self.dead()
        self.assertEqual(len(heard.things), 3)
        why = marks.Why.of(message)
        self.assertEqual((why.reason, why.attempts, why.error), ("delivery_limit", 1, "the broker took it out of work"))
        self.assertRegex(why.at, r"^\d{4}-\d\d-\d\dT")
        self.assertRegex(brief(message), "^one +.* delivery_limit after 1 attempt: the broker took it out of work$")
        self.assertRegex(
            whole(message), r'(?m)^x-death: \[\{"count": 1, "reason": "delivery_limit", "queue": "work", "time": "20'
        )
        self.assertEqual((shown(message)["reason"], shown(message)["error"]), (why.reason, why.error))
        summary = await self.summary()
        self.assertEqual((summary.count, summary.since, summary.reasons), (1, why.at, {"delivery_limit": 1}))
        self.assertEqual((await self.replay()).done, 1)
        *_, (data, context) = await heard.wait(4)
        self.assertEqual((data, context.attempt, context.message.properties["message_id"]), (1, 1, "one"))
        self.assertEqual((context.message.exchange, context.message.routing_key), ("orders", "new"))
        self.assertEqual(context.data["plain"], 5)
        self.assertEqual([name for name in context.message.headers if name.startswith("x-")], [])
        self.assertEqual(await self.left(), [])

    async def test_after_attempts(self) -> None:
        """One that had failed before has the number of its attempt, and goes back with the address that it had."""
        heard = Heard()
        await self.start(listener(heard, FAILED, BACK, BACK, BACK, None, retry=POLICY))
        await self.publish()
        (message,) = await self.dead()
        self.assertEqual((marks.Why.of(message).reason, marks.Why.of(message).attempts), ("delivery_limit", 2))
        await self.replay()
        *_, (_, context) = await heard.wait(5)
        self.assertEqual((context.attempt, context.message.exchange, context.message.routing_key), (1, "orders", "new"))

    async def test_requeued(self) -> None:
        """With ``on_parked: requeue`` a message comes again until the broker gives it up; then it is parked."""
        heard = Heard()
        await self.start(listener(heard, FAILED, retry=Retry(attempts=1)), on_parked="requeue")
        await self.publish()
        (message,) = await self.dead()
        self.assertEqual((len(heard.things), marks.Why.of(message).reason), (3, "delivery_limit"))

    async def test_again(self) -> None:
        """One that is replayed and comes back too often again is parked again, and replayed again."""
        heard = Heard()
        await self.start(listener(heard, *[BACK] * 6, None, retry=POLICY))
        await self.publish()
        for _ in range(2):
            await self.dead()
            self.assertEqual((await self.replay()).done, 1)
        *_, (_, context) = await heard.wait(7)
        self.assertEqual((context.message.exchange, context.message.routing_key), ("orders", "new"))
        self.assertNotIn("x-death", context.message.headers)

    async def test_queue_type(self) -> None:
        """With ``QUEUE_TYPE: quorum`` the queues of events have dead letters too, and those of calls have not."""
        await self.start(failing(Heard(), None, retry=POLICY), QUEUE_TYPE="quorum")
        arguments = {**PARKS, "x-dead-letter-routing-key": f"{HEARD}.parked"}
        publisher = self.connections().publisher
        await publisher.declare(Queue(HEARD, arguments={**QUORUM, **arguments}), Queue(PARKING, arguments=QUORUM))
        await publisher.declare(Queue("work", arguments={**QUORUM, **PARKS}), Queue("rpc-listener", arguments=QUORUM))

    async def call_that_came_back(self, returns: int) -> Deferred[Any]:
        """A call whose request has come back so often. Nobody consumes it now."""
        bound = Queue("rpc-listener", Exchange("nameko-rpc", "topic"), "listener.*", arguments=QUORUM)
        connections, came = self.connections(), Heard()
        await connections.publisher.declare(bound)
        cluster = await self.cluster()
        answer: Deferred[Any] = cluster.listener.call()

        def give_back(message: Message) -> None:
            if len(came.things) < returns:
                message.reject(requeue=True)
            came()

        consumer = connections.consume(bound, give_back, 1)
        await came.wait(returns + 1)
        await consumer.close()
        return answer

    async def test_request(self) -> None:
        """A request that comes back too often is parked before the broker drops it; its caller gets an error."""
        heard = Heard()
        answer = await self.call_that_came_back(RETURNS_MAX)
        await self.start(answering(heard, retry=POLICY), QUEUE_TYPE="quorum")
        error = await self.assertFailure(answer, RemoteError)
        self.assertEqual((error.exc_type, len(heard.things)), ("Reject", 0))
        (message,) = await self.dead("rpc-listener.parked")
        self.assertEqual(marks.Why.of(message).reason, "delivery_limit")
        await self.replay(queue="rpc-listener.parked")
        (context,) = await heard.wait()
        self.assertEqual((context.attempt, context.message.routing_key), (1, "listener.call"))

    async def test_request_that_runs(self) -> None:
        """A request runs if it has come back less often, and also if nobody wants it parked."""
        for returns, retry, config in (
            (RETURNS_MAX - 2, POLICY, {}),
            (RETURNS_MAX, None, {}),
            (RETURNS_MAX, POLICY, {"on_parked": "drop"}),
            (RETURNS_MAX, POLICY, {"on_parked": "requeue"}),
        ):
            heard = Heard()
            answer = await self.call_that_came_back(returns)
            (container,) = await self.start(answering(heard, retry=retry), QUEUE_TYPE="quorum", **config)
            await answer
            self.assertEqual(len(heard.things), 1)
            await container.stop()

    async def test_without(self) -> None:
        """A classic queue, one with its own dead letters, and those of entrypoints that don't park stay as they are."""
        own = {"x-dead-letter-exchange": "theirs"}
        for arguments, options, config in (
            ({}, {"retry": POLICY}, {}),
            ({**LIMITED, **own}, {"retry": POLICY}, {}),
            (LIMITED, {}, {}),
            (LIMITED, {"retry": POLICY}, {"on_parked": "drop"}),
            (LIMITED, {"retry": False}, {"RETRY": {"attempts": 2}}),
        ):
            with self.subTest(arguments=arguments, options=options, config=config):
                (container,) = await self.start(listener(Heard(), None, arguments=arguments, **options), **config)
                publisher = self.connections().publisher
                await publisher.declare(Queue("work", arguments=arguments))
                await container.stop()
                await self.delete("work")

    async def test_full(self) -> None:
        """A queue with a limit of its own keeps to that, and its dead letters are handed on at most once."""
        for own in ({"x-max-length": 3}, {"x-max-length-bytes": 3}, {"x-overflow": "drop-head"}):
            arguments = {**QUORUM, **own}
            (container,) = await self.start(listener(Heard(), None, arguments=arguments, retry=POLICY))
            await self.connections().publisher.declare(Queue("work", arguments={**arguments, **DEAD_LETTERS}))
            await container.stop()
            await self.delete("work")

    async def delete(self, queue: str) -> None:
        protocol = await self.connections().consuming.when_connected()
        channel = await protocol.open_channel()
        await channel.queue_delete(queue=queue)

    async def test_exists(self) -> None:
        """A queue that exists without dead letters is used as it stands, with one warning, also after reconnects."""
        await self.connections().publisher.declare(Queue("work", arguments=LIMITED))
        heard, told = Heard(), self.logged("queue work is used as it stands")
        (container,) = await self.start(listener(heard, None, retry=POLICY))
        (entrypoint,) = container.entrypoints
        subscription = entrypoint.consumer
        assert isinstance(subscription, Subscription)
        for number in range(3):
            await self.publish(str(number))
            await heard.wait(number + 1)
            again: Deferred[None] = Deferred()
            subscription.on_ready[:] = [lambda again=again: again.callback(None)]
            subscription.connection.reconnect()
            await again
        (line,) = told.things
        settings = (
            '\'{"dead-letter-exchange": "", "dead-letter-routing-key": "work.parked", "dead-letter-strategy":'
            ' "at-least-once", "overflow": "reject-publish"}\''
        )
        self.assertIn("are not parked in work.parked (queue 'work' exists with other properties (PRECONDITION", line)
        self.assertRegex(line, r"give it one: rabbitmqctl set_policy -p \S+ parked-work '\^work\$' ")
        self.assertTrue(line.endswith(f"{settings} --apply-to queues"), line)

    async def test_exists_otherwise(self) -> None:
        """A queue that differs in more ends the start, as ever, and there is no warning besides."""
        await self.connections().publisher.declare(Queue("work"))
        told = self.logged("is used as it stands")
        starting = Deferred.fromCoroutine(self.start(listener(Heard(), None, retry=POLICY)))
        error = await self.assertFailure(starting, DeclarationMismatch)
        self.assertIn("x-queue-type", str(error))
        self.assertEqual(told.things, [])

    async def test_no_more(self) -> None:
        """A queue that was made with dead letters is used by a service that has no policy any more."""
        arguments = {**LIMITED, **PARKS}
        await self.connections().publisher.declare(Queue(PARKING), Queue("work", arguments=arguments))
        heard, told = Heard(), self.logged("is used as it stands")
        await self.start(listener(heard, None))
        await self.publish()
        await heard.wait()
        self.assertEqual(told.things, [])

    async def test_parking_queue_exists(self) -> None:
        """A parking queue that exists with other arguments takes dead letters, too."""
        await self.connections().publisher.declare(Queue(PARKING, arguments={"x-max-length": 5}))
        told = self.logged("is used as it stands")
        await self.start(listener(Heard(), BACK, retry=POLICY))
        await self.publish()
        await self.dead()
        self.assertEqual(told.things, [])

    async def test_deleted(self) -> None:
        """A queue that is deleted is made with its dead letters again."""
        heard = Heard()
        await self.start(listener(heard, None, retry=POLICY))
        told = self.logged("queue work was deleted on the broker")
        await self.delete("work")
        await told.wait()
        await self.connections().publisher.declare(Queue("work", arguments={**LIMITED, **PARKS}))


class DeadLettersOnRabbitMQ(OnRabbitMQ, DeadLetterTests):
    """The same on a RabbitMQ."""

    async def test_policy(self) -> None:
        """The command of the warning has dead letters parked from a queue that existed without."""
        await self.connections().publisher.declare(Queue("work", arguments=LIMITED))
        told = self.logged("queue work is used as it stands")
        await self.start(listener(Heard(), BACK, retry=POLICY))
        _, command, *arguments = shlex.split(told.things[0].partition("give it one: ")[2])
        await self.node.ctl(command, *arguments)
        await self.publish()
        (message,) = await self.dead()
        self.assertEqual(marks.Why.of(message).reason, "delivery_limit")
