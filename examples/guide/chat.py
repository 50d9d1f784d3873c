"""A chat in the browser: the page, the methods that it calls, and the events that it gets."""

from pathlib import Path

from werkzeug.wrappers import Response

from txservices import http
from txservices.web.websocket import WebSocketHubProvider, rpc

PAGE = (Path(__file__).parent / "chat.html").read_text(encoding="utf-8")


class Chat:
    name = "chat"

    hub = WebSocketHubProvider()

    @http("GET", "/")
    def page(self, request):
        return Response(PAGE, mimetype="text/html")

    @rpc
    def join(self, socket_id, room):
        self.hub.subscribe(socket_id, room)

    @rpc
    def say(self, socket_id, room, text):
        if room not in self.hub.get_subscriptions(socket_id):
            raise ValueError(f"join {room} first")
        self.hub.broadcast(room, "said", {"room": room, "text": text})
