"""A service that asks an API over HTTP.

txservices run examples.guide.calling_out
txservices call weather.tomorrow '["Berlin"]'
"""

from txservices import HttpClient, rpc
from txservices.httpclient import HttpCallFailed


class Api(HttpClient):
    """Its address is in the configuration, as WEATHER_API."""

    def setup(self):
        self.base_url = self.container.config.get("WEATHER_API", "https://api.example")
        super().setup()


class Weather:
    name = "weather"

    api = Api(timeout=5, headers={"Accept": "application/json"})

    @rpc
    async def tomorrow(self, city):
        answer = await self.api.get("/forecast", params={"city": city})
        if answer.status == 404:
            return "nobody knows"
        return answer.raise_for_status().json()["tomorrow"]

    @rpc
    async def report(self, city, degrees):
        try:
            answer = await self.api.post("/reports", json={"city": city, "degrees": degrees})
        except HttpCallFailed as error:  # it may have arrived nevertheless: a POST is not made again
            return f"not reported: {error}"
        return answer.status

    @rpc(blocking=True)
    def in_a_thread(self, city):
        return self.api.get("/forecast", params={"city": city}).json()["tomorrow"]
