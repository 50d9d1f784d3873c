"""asyncio's libraries in a service: httpx asks a web server, aiosqlite keeps what it has answered.

pip install httpx aiosqlite
txservices run --reactor asyncio examples.asyncio_libraries
txservices call shop.total '[["pen", "paper"]]'
"""

import asyncio

import aiosqlite
import httpx

from txservices.extensions import DependencyProvider
from txservices.rpc import RpcProxy, rpc
from txservices.web.handlers import http


class WebClient(DependencyProvider):
    """One client, and its connections, for all workers."""

    async def setup(self):
        address = self.container.config.get("WEB_SERVER_ADDRESS", "127.0.0.1:8000")
        self.client = httpx.AsyncClient(base_url=f"http://{address}")

    async def stop(self):
        await self.client.aclose()

    def get_dependency(self, worker_ctx):
        return self.client


class Database(DependencyProvider):
    """One connection to a database in memory."""

    async def setup(self):
        self.connection = await aiosqlite.connect(":memory:")
        await self.connection.execute("CREATE TABLE prices (item TEXT PRIMARY KEY, price INTEGER)")

    async def stop(self):
        await self.connection.close()

    def get_dependency(self, worker_ctx):
        return self.connection


class Supplier:
    name = "supplier"

    @http("GET", "/price/<item>")
    async def price(self, request, item):
        await asyncio.sleep(0.01)
        return str(len(item))

    @rpc
    def discount(self):
        return 1


class Shop:
    name = "shop"

    web = WebClient()
    database = Database()
    supplier = RpcProxy("supplier")

    @rpc
    async def total(self, items):
        prices = await asyncio.wait_for(asyncio.gather(*map(self.price, items)), timeout=10)
        return sum(prices) - await self.supplier.discount()

    async def price(self, item):
        async with self.database.execute("SELECT price FROM prices WHERE item = ?", (item,)) as found:
            known = await found.fetchone()
        if known is not None:
            return known[0]
        response = await self.web.get(f"/price/{item}")
        price = int(response.raise_for_status().text)
        await self.database.execute("INSERT OR REPLACE INTO prices VALUES (?, ?)", (item, price))
        return price
