"""Plain txamqp 0.8.2, as its examples use it: a DeferredQueue a consumer, bare `basic_publish`, JSON bodies.

It knows no confirms, and can't read the header array that nameko sends, so this peer has neither: fewer guarantees
than the others. Its wheel ships no description of AMQP; it is given the table of txservices.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ClientCreator
from twisted.internet.task import react
from txamqp.client import TwistedDelegate
from txamqp.content import Content
from txamqp.protocol import AMQClient
from txamqp.spec import Constant

from benchmarks.peers import contract
from txservices.amqp.spec import txamqp_spec
from txservices.utils.address import parse_addresses


def spec() -> Any:
    """The table, and the frame types by name, which plain txamqp looks up there for each frame."""
    made = txamqp_spec()
    # it opens with these; RabbitMQ would take 9 and 1 for 0-8
    made.major, made.minor = 0, 9
    for name, number in {"frame-method": 1, "frame-header": 2, "frame-body": 3, "frame-heartbeat": 8}.items():
        made.constants.add(Constant(made, name, number, None, []))
    return made


async def connect(uri: str) -> Any:
    address = parse_addresses(uri)[0]
    creator = ClientCreator(reactor, AMQClient, TwistedDelegate(), address.vhost, spec())
    client = await creator.connectTCP(address.host, address.port)
    await client.authenticate(address.username, address.password)
    channel = await client.channel(1)
    await channel.channel_open()
    await channel.exchange_declare(exchange="txamqp-rpc", type="topic")
    return client, channel


async def consume(client: Any, channel: Any, queue: str, key: str, **options: Any) -> Any:
    await channel.queue_declare(queue=queue, **options)
    await channel.queue_bind(queue=queue, exchange="txamqp-rpc", routing_key=key)
    await channel.basic_consume(queue=queue, consumer_tag=queue)
    return await client.queue(queue)


async def serve(options: Any) -> None:
    client, channel = await connect(options.uri)
    await channel.basic_qos(prefetch_count=100)
    requests = await consume(client, channel, "rpc-echo", "echo", durable=True)
    contract.ready()
    while True:
        message = await requests.get()
        content = message.content
        text = json.loads(content.body)["args"][0]
        reply = Content(json.dumps({"result": text, "error": None}))
        reply["correlation_id"] = content["correlation_id"]
        await channel.basic_publish(exchange="txamqp-rpc", routing_key=content["reply_to"], content=reply)
        await channel.basic_ack(message.delivery_tag)


async def call(options: Any) -> None:
    client, channel = await connect(options.uri)
    reply_to = str(uuid4())
    replies = await consume(client, channel, f"reply-{reply_to}", reply_to, exclusive=True)
    waiting: dict[str, Deferred[Any]] = {}
    text = "x" * options.size

    async def listen() -> None:
        while True:
            message = await replies.get()
            await channel.basic_ack(message.delivery_tag)
            result = json.loads(message.content.body)["result"]
            waiting.pop(message.content["correlation_id"]).callback(result)

    listening = Deferred.fromCoroutine(listen())

    async def one() -> None:
        request = Content(json.dumps({"args": [text], "kwargs": {}}))
        number = str(uuid4())
        request["correlation_id"], request["reply_to"] = number, reply_to
        answer = waiting[number] = Deferred()
        await channel.basic_publish(exchange="txamqp-rpc", routing_key="echo", content=request)
        await answer

    await contract.timed(one, options.amount, options.in_flight, lambda *all: gather(all))
    listening.addErrback(lambda failure: None)
    listening.cancel()


def gather(coroutines: Any) -> Deferred[Any]:
    return gatherResults([Deferred.fromCoroutine(each) for each in coroutines])


if __name__ == "__main__":
    options = contract.arguments()
    react(lambda _: Deferred.fromCoroutine({"serve": serve, "call": call}[options.action](options)))
