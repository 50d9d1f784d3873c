"""Which queues there are: those of services, and those that RabbitMQ's management lists. AMQP lists none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from treq.client import HTTPClient
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http import OK

from txservices import constants
from txservices.amqp.connections import Connections
from txservices.command import loading
from txservices.containers import get_container_cls
from txservices.exceptions import CommandError
from txservices.messaging import Consumer
from txservices.retry.failures import PARKED
from txservices.rpc import Rpc
from txservices.utils import sanitize_url

MANAGEMENT_TIMEOUT = 30.0  # seconds for its answer


def of_modules(modules: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """The queues of the services in these modules, as they are named in those of their parking queues."""
    names: dict[str, None] = {}
    for service_cls in [cls for module in modules for cls in loading.find_services(module, os.getcwd())]:
        container = get_container_cls(config)(service_cls, config)
        for entrypoint in container.entrypoints:
            if isinstance(entrypoint, Rpc):
                names[constants.RPC_QUEUE_TEMPLATE.format(container.service_name)] = None
            elif isinstance(entrypoint, Consumer):
                names[entrypoint.parked_as] = None
    return list(names)


async def parking_queues(url: str, connections: Connections) -> list[str]:
    """The parking queues that the management lists. Errors are those of ``listed``."""
    names = [queue["name"] for queue in await listed(url, connections)]
    return sorted(name for name in names if name.endswith(PARKED))


async def listed(url: str, connections: Connections) -> list[dict[str, Any]]:
    """The queues in our virtual host, each with ``name``, ``messages`` and ``consumers``, as far as they are counted.

    ``CommandError`` if there is no management at that address.
    """
    parts = urlsplit(url)
    auth = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    base = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
    vhost = quote(connections.addresses[0].vhost, safe="")
    reactor = connections.clock
    http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
    shown = sanitize_url(url)
    address = f"{base}/api/queues/{vhost}?columns=name,messages,consumers"
    queues: list[dict[str, Any]] = []
    try:
        response = await http.get(address, auth=auth, timeout=MANAGEMENT_TIMEOUT, reactor=reactor)
        text = await response.text()
        if response.code == OK:
            queues = [{**queue, "name": str(queue["name"])} for queue in json.loads(text)]
    except Exception as error:  # whatever it is that answers there, or does not
        reason = str(error) or type(error).__name__
        raise CommandError(f"--management: no management of RabbitMQ at {shown}: {reason}") from None
    if response.code != OK:
        raise CommandError(f"--management: {shown} answers {response.code}: see its user, and the virtual host")
    return queues
