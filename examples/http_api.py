"""An API: JSON, errors as problem details, pages of other origins, an upload, events, files, and a mounted application.

txservices run http_api http_client --config http_api.yaml
"""

import os
from dataclasses import dataclass

from werkzeug.exceptions import abort

from txservices import EventStream, ServerSentEvent
from txservices.web.cors import Cors
from txservices.web.handlers import http
from txservices.web.mounts import Mount
from txservices.web.static import Static

ASSETS = os.path.join(os.path.dirname(__file__), "assets")


@dataclass
class Item:
    number: int
    name: str


ITEMS = {1: Item(1, "tea"), 2: Item(2, "spoon")}


def pages(environ, start_response):
    """Any application for WSGI may stand here, as those of Flask and Django."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['PATH_INFO']} below {environ['SCRIPT_NAME']}".encode()]


class Shop:
    name = "shop"

    assets = Static("/assets", ASSETS, max_age=3600)
    admin = Mount("/admin", wsgi=pages)

    @http("GET", "/items", cors=Cors("*"))
    def items(self, request):
        return {"items": list(ITEMS.values())}

    @http("GET", "/items/<int:number>", cors=Cors("*"), conditional=True)
    def item(self, request, number):
        if number not in ITEMS:
            abort(404, f"there is no item {number}")
        return ITEMS[number]

    @http("POST", "/items")
    def add(self, request):
        item = Item(len(ITEMS) + 1, request.get_json()["name"])
        ITEMS[item.number] = item
        return 201, {"Location": f"/items/{item.number}"}, item

    @http("PUT", "/pictures/<name>", stream=True, body_max=100_000_000)
    async def picture(self, request, name):
        size = 0
        async for piece in request.stream:  # as it comes: nothing waits for the whole
            size += len(piece)
        return {"name": name, "size": size}

    @http("GET", "/news")
    def news(self, request):
        return EventStream(ServerSentEvent(item.name, event="item", id=str(item.number)) for item in ITEMS.values())
