"""A Bayeux server on this machine, as far as nameko-bayeux-client asks one. It is not a service: it outlives them."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Cometd:
    """Answers a client's requests.

    Attributes:
        asked: the requests' channels, with what was subscribed to.
        events: what the next connect gets; None when the client leaves.
    """

    def __init__(self, uri):
        self.asked = []
        self.authorized = []
        self.events = queue.Queue()
        cometd = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                cometd.authorized.append(self.headers["Authorization"])
                body = json.dumps([reply for each in messages for reply in cometd.replies(each)]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        parts = urlsplit(uri)
        server = ThreadingHTTPServer((parts.hostname, parts.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def replies(self, message):
        channel = message["channel"]
        self.asked.append([channel, message.get("subscription")])
        yield {"channel": channel, "successful": True, "clientId": "client", "advice": {"reconnect": "retry"}}
        if channel == "/meta/disconnect":
            self.events.put(None)
        if channel == "/meta/connect":
            event = self.events.get()
            if event is not None:
                yield event
