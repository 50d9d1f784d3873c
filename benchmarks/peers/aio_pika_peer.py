"""aio-pika: `JsonRPC` of its patterns on a robust connection, on uvloop; as its documentation's RPC example.

Publisher confirms are on (its default) and awaited by the publisher; prefetch is left open for RPC as in that example,
and 100 for events as in its tutorial; event queue durable, events persistent.
"""

from __future__ import annotations

import asyncio

import aio_pika
import uvloop
from aio_pika.patterns import JsonRPC

from benchmarks.peers import contract

QUEUE = "events"


async def echo(*, text: str) -> str:
    return text


async def serve(options):
    connection = await aio_pika.connect_robust(options.uri)
    channel = await connection.channel()
    if options.work == "rpc":
        rpc = await JsonRPC.create(channel)
        await rpc.register("echo", echo, auto_delete=True)
    else:
        await channel.set_qos(prefetch_count=100)
        queue = await channel.declare_queue(QUEUE, durable=True)
        handled = contract.Handled()

        async def on_event(message):
            async with message.process():
                handled(int(message.body))

        await queue.consume(on_event)
    contract.ready()
    await asyncio.Future()


async def call(options):
    connection = await aio_pika.connect_robust(options.uri)
    async with connection:
        channel = await connection.channel()
        if options.work == "rpc":
            rpc = await JsonRPC.create(channel)
            arguments = {"text": "x" * options.size}
            one = lambda: rpc.call("echo", kwargs=arguments)  # noqa: E731
            await contract.timed(one, options.amount, options.in_flight, asyncio.gather)
            return
        exchange = channel.default_exchange

        def dispatch(payload):
            body = str(payload).encode()
            message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            return exchange.publish(message, routing_key=QUEUE)

        await contract.dispatched(dispatch, options.amount, options.in_flight, asyncio.gather)


if __name__ == "__main__":
    options = contract.arguments()
    uvloop.run({"serve": serve, "call": call}[options.action](options))
