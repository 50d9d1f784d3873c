"""FastAPI on uvicorn with uvloop and httptools (`uvicorn[standard]`), one worker process, no access log.

The RPC that a request makes is aio-pika's `JsonRPC`, to the service of `aio_pika_peer`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import aio_pika
import uvicorn
from aio_pika.patterns import JsonRPC
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from benchmarks.peers import contract


class Item(BaseModel):
    text: str


def plain(options):
    app = FastAPI()

    @app.get("/items/{number}")
    async def get(number: int):
        return {"id": number, "name": "item"}

    @app.post("/items")
    async def post(item: Item):
        return {"length": len(item.text)}

    app.mount("/assets", StaticFiles(directory=contract.assets()))

    @app.post("/upload")
    async def upload(request: Request):
        length = 0
        async for piece in request.stream():
            length += len(piece)
        return {"length": length}

    @app.get("/download/{pieces}")
    async def download(pieces: int):
        async def body():
            for _ in range(pieces):
                yield contract.PIECE

        return StreamingResponse(body())

    return app


def relay(options):
    rpc = None

    @asynccontextmanager
    async def connected(app):
        nonlocal rpc
        async with await aio_pika.connect_robust(options.uri) as connection:
            rpc = await JsonRPC.create(await connection.channel())
            yield

    app = FastAPI(lifespan=connected)

    @app.get("/call/{number}")
    async def call(number: int):
        return {"id": number, "text": await rpc.call("echo", kwargs={"text": contract.TEXT})}

    return app


if __name__ == "__main__":
    options = contract.arguments()
    app = {"http": plain, "http-rpc": relay}[options.work](options)
    uvicorn.run(app, host="127.0.0.1", port=options.port, access_log=False, log_level="warning")
