"""A client of RabbitMQ's management API, as far as tests need it. The broker needs the plugin ``rabbitmq_management``.

    manager = Client("http://guest:guest@localhost:15672")
    await manager.create_vhost("test")
    await manager.get_queues("test")

Each method gives a Deferred.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from txservices.utils import default_reactor, sanitize_url

__all__ = ["Client", "HTTPError"]

CONNECT_TIMEOUT = 5.0  # seconds
ANSWER_TIMEOUT = 30.0  # seconds; it can take many to delete a virtual host with many queues


@frozen
class Response:
    """The management's answer to a request."""

    status_code: int
    text: str


class HTTPError(Exception):
    """The management refused a request: 404 if there is no such thing, 401 if the credentials are wrong.

    Attributes:
        response: the answer, with its ``status_code`` and ``text``.
    """

    def __init__(self, request: str, response: Response) -> None:
        super().__init__(f"{request} is answered {response.status_code}: {response.text.strip()}")
        self.response = response


class Client:
    """Each method makes a request. Its Deferred fires with the JSON of the answer, or None if that is empty.

    It fails with ``HTTPError`` if the request is refused, and with ``ConnectionError`` if there is no management at
    that address. No connection is kept between requests.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self.auth = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self.base = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/") + "/api"
        self.shown = sanitize_url(uri)
        reactor = default_reactor()
        pool = HTTPConnectionPool(reactor, persistent=False)
        self.http = HTTPClient(Agent(reactor, connectTimeout=CONNECT_TIMEOUT, pool=pool))

    def request(self, method: str, *path: str, body: Any = None) -> Deferred[Any]:
        """Any other request: ``request("GET", "vhosts", name)``."""
        return Deferred.fromCoroutine(self.answer(method, "/".join(quote(part, safe="") for part in path), body))

    async def answer(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = Headers({"Content-Type": ["application/json"]})
        try:
            response = await self.http.request(
                method, f"{self.base}/{path}", auth=self.auth, headers=headers, data=data, timeout=ANSWER_TIMEOUT
            )
        except ConnectError as error:
            raise ConnectionError(
                f"no management of RabbitMQ at {self.shown}: {error}: is it the right address, and is the plugin"
                " rabbitmq_management enabled there?"
            ) from error
        text = await response.text()
        if response.code >= 400:
            raise HTTPError(f"{method} {path}", Response(response.code, text))
        return json.loads(text) if text else None

    # Connections

    def get_connections(self) -> Deferred[Any]:
        """All connections. RabbitMQ renews the list every five seconds."""
        return self.request("GET", "connections")

    def delete_connection(self, name: str) -> Deferred[Any]:
        """Have the broker close a connection."""
        return self.request("DELETE", "connections", name)

    # Virtual hosts

    def get_all_vhosts(self) -> Deferred[Any]:
        return self.request("GET", "vhosts")

    def create_vhost(self, vhost: str) -> Deferred[Any]:
        return self.request("PUT", "vhosts", vhost)

    def delete_vhost(self, vhost: str) -> Deferred[Any]:
        return self.request("DELETE", "vhosts", vhost)

    def set_vhost_permissions(self, vhost: str, username: str, configure: str, read: str, write: str) -> Deferred[Any]:
        """Set what a user may do in a virtual host: each permission is a regular expression for names."""
        body = {"configure": configure, "read": read, "write": write}
        return self.request("PUT", "permissions", vhost, username, body=body)

    # Exchanges and queues

    def get_exchanges(self, vhost: str) -> Deferred[Any]:
        return self.request("GET", "exchanges", vhost)

    def get_queues(self, vhost: str) -> Deferred[Any]:
        return self.request("GET", "queues", vhost)

    def get_queue(self, vhost: str, name: str) -> Deferred[Any]:
        return self.request("GET", "queues", vhost, name)

    def create_queue(self, vhost: str, name: str, **properties: Any) -> Deferred[Any]:
        """Declare a queue. The properties are the management's: ``durable``, ``auto_delete``, ``arguments``."""
        return self.request("PUT", "queues", vhost, name, body=properties)

    def get_queue_bindings(self, vhost: str, name: str) -> Deferred[Any]:
        return self.request("GET", "queues", vhost, name, "bindings")

    def create_queue_binding(self, vhost: str, exchange: str, queue: str, routing_key: str) -> Deferred[Any]:
        body = {"routing_key": routing_key}
        return self.request("POST", "bindings", vhost, "e", exchange, "q", queue, body=body)

    # Messages

    def publish(
        self, vhost: str, name: str, routing_key: str, payload: str, properties: dict[str, Any] | None = None
    ) -> Deferred[Any]:
        """Publish a text to the exchange ``name``. Fires with ``{"routed": True}`` if a queue took it."""
        body = {
            "routing_key": routing_key,
            "payload": payload,
            "payload_encoding": "string",
            "properties": properties or {},
        }
        return self.request("POST", "exchanges", vhost, name, "publish", body=body)

    def get_messages(self, vhost: str, name: str, count: int = 1, requeue: bool = False) -> Deferred[Any]:
        """Take up to ``count`` messages out of a queue. With ``requeue`` they are put back."""
        body = {
            "count": count,
            "encoding": "auto",
            "ackmode": "ack_requeue_true" if requeue else "ack_requeue_false",
        }
        return self.request("POST", "queues", vhost, name, "get", body=body)
