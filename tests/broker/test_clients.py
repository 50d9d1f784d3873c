"""Other people's clients over real TCP: pika and kombu, as they come."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import kombu
import pika
from pika.exceptions import (
    ChannelClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)
from twisted.internet import reactor
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from txservices.broker.server import Broker


class ClientTestCase(TestCase):
    """A broker on a port of its own, and a thread for a client that blocks."""

    timeout = 120

    async def setUp(self) -> None:
        self.broker = Broker()
        listening = await self.broker.listen("127.0.0.1", 0)
        self.port = listening.getHost().port
        self.addCleanup(self.broker.close)
        self.threads = ThreadPool(1, 2)
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return deferToThreadPool(reactor, self.threads, function, *args)


class PikaTests(ClientTestCase):
    """pika's BlockingConnection."""

    def connect(self, **options: Any) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port, **options))

    async def test_everything_once(self) -> None:
        """Declared, bound, published with confirms, returned, consumed, acked, nacked, got, purged, deleted."""

        def use() -> list[Any]:
            connection = self.connect()
            channel = connection.channel()
            channel.confirm_delivery()
            channel.exchange_declare("x", "topic", durable=True)
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, "x", "a.#")
            properties = pika.BasicProperties(headers={"a": [1, {"b": None}]}, delivery_mode=2, correlation_id="c")
            for number in range(3):
                channel.basic_publish("x", "a.b", b"%d" % number, properties, mandatory=True)
            found: list[Any] = []
            try:
                channel.basic_publish("x", "b", b"", mandatory=True)
            except UnroutableError as error:
                found.append(error.messages[0].method.reply_code)
            channel.basic_qos(prefetch_count=1)
            for method, got, body in channel.consume(queue, inactivity_timeout=60):
                found.append((body, method.redelivered, got.headers, got.correlation_id))
                if body == b"0" and not method.redelivered:
                    channel.basic_nack(method.delivery_tag, requeue=True)
                else:
                    channel.basic_ack(method.delivery_tag)
                if body == b"2":
                    break
            channel.cancel()
            channel.basic_publish("", queue, b"last")
            found.append(channel.basic_get(queue, auto_ack=True)[2])
            channel.queue_purge(queue)
            channel.queue_unbind(queue, "x", "a.#")
            channel.queue_delete(queue)
            channel.exchange_delete("x")
            connection.close()
            return found

        headers = {"a": [1, {"b": None}]}
        self.assertEqual(
            await self.in_thread(use),
            [
                312,
                (b"0", False, headers, "c"),
                (b"0", True, headers, "c"),
                (b"1", False, headers, "c"),
                (b"2", False, headers, "c"),
                b"last",
            ],
        )

    async def test_direct_reply_to(self) -> None:
        """A caller with no queue of its own, as pika's users write it: each answer comes to its request."""

        def use() -> list[Any]:
            connection = self.connect()
            channel = connection.channel()
            channel.queue_declare("double", exclusive=True)

            def double(channel: Any, method: Any, properties: Any, body: bytes) -> None:
                answer = pika.BasicProperties(correlation_id=properties.correlation_id)
                channel.basic_publish("", properties.reply_to, body * 2, answer)
                channel.basic_ack(method.delivery_tag)

            channel.basic_consume("double", double)
            caller = connection.channel()
            answers: list[Any] = []
            caller.basic_consume(
                "amq.rabbitmq.reply-to",
                lambda channel, method, properties, body: answers.append((properties.correlation_id, body)),
                auto_ack=True,
            )
            for number in range(3):
                request = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=str(number))
                caller.basic_publish("", "double", b"%d" % number, request)
            until = time.monotonic() + 60
            while len(answers) < 3 and time.monotonic() < until:
                connection.process_data_events(0.1)
            connection.close()
            return answers

        self.assertEqual(await self.in_thread(use), [("0", b"00"), ("1", b"11"), ("2", b"22")])

    async def test_large_messages(self) -> None:
        """A body of many frames comes back whole."""

        def use() -> bool:
            connection = self.connect(frame_max=4096)
            channel = connection.channel()
            queue = channel.queue_declare("", exclusive=True).method.queue
            body = bytes(range(256)) * 4096
            channel.basic_publish("", queue, body)
            got = channel.basic_get(queue, auto_ack=True)[2]
            connection.close()
            return bool(got == body)

        self.assertTrue(await self.in_thread(use))

    async def test_refusals(self) -> None:
        """A channel error is raised as such and leaves the connection; a login or virtual host refused, as itself."""

        def use() -> list[Any]:
            connection = self.connect()
            found: list[Any] = []
            try:
                connection.channel().queue_declare("nope", passive=True)
            except ChannelClosedByBroker as error:
                found.append(error.reply_code)
            found.append(connection.channel().is_open)
            connection.close()
            for options in ({"credentials": pika.PlainCredentials("guest", "wrong")}, {"virtual_host": "nope"}):
                try:
                    self.connect(**options)
                except (ProbableAuthenticationError, ProbableAccessDeniedError) as error:
                    found.append(type(error))
            return found

        self.assertEqual(await self.in_thread(use), [404, True, ProbableAuthenticationError, ProbableAccessDeniedError])

    async def test_cancelled_by_the_broker(self) -> None:
        """A consumer is told that its queue was deleted."""

        def told() -> bool:
            connection = self.connect()
            channel = connection.channel()
            channel.queue_declare("q")
            cancelled: list[Any] = []
            channel.add_on_cancel_callback(cancelled.append)
            channel.basic_consume("q", lambda *args: None)
            self.connect().channel().queue_delete("q")
            connection.process_data_events(time_limit=5)
            connection.close()
            return len(cancelled) == 1

        self.assertTrue(await self.in_thread(told))

    async def test_what_a_dead_client_had(self) -> None:
        """A client is killed: what it had goes to another, marked as redelivered."""

        def use() -> list[Any]:
            connection = self.connect()
            channel = connection.channel()
            channel.queue_declare("q")
            for number in range(3):
                channel.basic_publish("", "q", b"%d" % number)
            client = subprocess.Popen([sys.executable, "-c", HOLDER, str(self.port)], stdout=subprocess.PIPE)
            with client:
                assert client.stdout is not None
                client.stdout.readline()
                client.kill()
            found = []
            for method, _, body in channel.consume("q", auto_ack=True, inactivity_timeout=60):
                found.append((body, method.redelivered))
                if len(found) == 3:
                    break
            connection.close()
            return sorted(found)

        self.assertEqual(await self.in_thread(use), [(b"0", True), (b"1", True), (b"2", False)])


# A process that takes two messages and keeps them.
HOLDER = """
import pika, sys
channel = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(sys.argv[1]))).channel()
channel.basic_get("q"), channel.basic_get("q")
print("has them", flush=True)
channel.connection.sleep(60)
"""


class KombuTests(ClientTestCase):
    """kombu on py-amqp: what nameko itself stands on."""

    async def test_as_nameko_uses_it(self) -> None:
        """A topic exchange, durable queues, a reply queue that expires, persistent JSON, confirms, qos, acks."""

        def use() -> list[Any]:
            exchange = kombu.Exchange("nameko-rpc", "topic", durable=True)
            requests = kombu.Queue("rpc-service", exchange, "service.*", durable=True)
            replies = kombu.Queue("rpc.reply-x", exchange, "reply-key", queue_arguments={"x-expires": 300000})
            found: list[Any] = []
            url = f"pyamqp://guest:guest@127.0.0.1:{self.port}//"
            with kombu.Connection(url, transport_options={"confirm_publish": True}, heartbeat=60) as connection:
                producer = connection.Producer(serializer="json")

                def answer(body: Any, message: Any) -> None:
                    producer.publish(
                        {"result": body["args"], "error": None},
                        exchange=exchange,
                        routing_key=message.properties["reply_to"],
                        correlation_id=message.properties["correlation_id"],
                    )
                    message.ack()

                def receive(body: Any, message: Any) -> None:
                    found.append((body, message.properties["correlation_id"]))
                    message.ack()

                with (
                    connection.Consumer(requests, callbacks=[answer], prefetch_count=10),
                    connection.Consumer(replies, callbacks=[receive]),
                ):
                    for number in range(3):
                        producer.publish(
                            {"args": [number, "hellø"], "kwargs": {}},
                            exchange=exchange,
                            routing_key="service.method",
                            reply_to="reply-key",
                            correlation_id=str(number),
                            mandatory=True,
                            headers={"nameko.call_id_stack": ["a.b.c"]},
                            expiration=10,
                        )
                    until = time.monotonic() + 60
                    while len(found) < 3 and time.monotonic() < until:
                        connection.drain_events(timeout=60)
                    connection.heartbeat_check()
            return found

        expected = [({"result": [number, "hellø"], "error": None}, str(number)) for number in range(3)]
        self.assertEqual(await self.in_thread(use), expected)

    async def test_mismatch_and_missing(self) -> None:
        """A queue that exists otherwise is PreconditionFailed, a missing exchange NotFound."""

        def use() -> list[str]:
            found = []
            with kombu.Connection(f"pyamqp://guest:guest@127.0.0.1:{self.port}//") as connection:
                kombu.Queue("q", durable=True).declare(channel=connection.channel())
                for attempt in (
                    lambda: kombu.Queue("q", durable=False).declare(channel=connection.channel()),
                    lambda: kombu.Exchange("x", passive=True).declare(channel=connection.channel()),
                ):
                    try:
                        attempt()
                    except connection.channel_errors as error:
                        found.append(type(error).__name__)
            return found

        self.assertEqual(await self.in_thread(use), ["PreconditionFailed", "NotFound"])
