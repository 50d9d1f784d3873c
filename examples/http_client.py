"""A service that asks the API of http_api.py: each request leads to another, whose headers have the ids of both."""

from txservices.httpclient import HttpClient
from txservices.web.handlers import http


class ShopApi(HttpClient):
    """Its address is in the configuration, as SHOP_API."""

    def setup(self):
        self.base_url = self.container.config["SHOP_API"]
        super().setup()


class Labels:
    name = "labels"

    shop = ShopApi(timeout=5)

    @http("GET", "/labels/<int:number>")
    async def label(self, request, number):
        answer = await self.shop.get(f"/items/{number}")
        if answer.status == 404:
            return 404, answer.json()["detail"]
        return f"* {answer.raise_for_status().json()['name']} *"
