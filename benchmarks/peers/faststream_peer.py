"""FastStream on RabbitMQ: a `subscriber` that returns its reply, and `broker.request`, as its documentation shows; on
uvloop, which its command line takes as well. Confirms are on, its default; prefetch is left open, its default.

Events are published to a durable queue of a topic exchange; its default is not to make them persistent.
"""

from __future__ import annotations

import asyncio
import logging

import uvloop
from faststream import FastStream
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from benchmarks.peers import contract

EVENTS = RabbitExchange("benchmark.events", type=ExchangeType.TOPIC, durable=True)
QUEUE = RabbitQueue("benchmark.tick", durable=True, routing_key="tick")


async def serve(options):
    broker = RabbitBroker(options.uri, log_level=logging.DEBUG)  # a line per message otherwise
    handled = contract.Handled()
    if options.work == "rpc":

        @broker.subscriber("echo")
        async def echo(text: str) -> str:
            return text
    else:

        @broker.subscriber(QUEUE, EVENTS)
        async def tick(payload: int) -> None:
            handled(payload)

    app = FastStream(broker)
    app.after_startup(contract.ready)
    await app.run(log_level=logging.WARNING)


async def call(options):
    async with RabbitBroker(options.uri) as broker:
        if options.work == "rpc":
            text = "x" * options.size

            async def one():
                reply = await broker.request(text, "echo", timeout=30)
                return await reply.decode()

            await contract.timed(one, options.amount, options.in_flight, asyncio.gather)
            return
        await broker.declare_exchange(EVENTS)

        def dispatch(payload):
            return broker.publish(payload, exchange=EVENTS, routing_key="tick")

        await contract.dispatched(dispatch, options.amount, options.in_flight, asyncio.gather)


if __name__ == "__main__":
    options = contract.arguments()
    uvloop.run({"serve": serve, "call": call}[options.action](options))
