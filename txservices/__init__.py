"""Microservices on Twisted, as nameko has them. A service is a class with a name. Extensions call its methods, and its
methods call extensions. Everything that waits is a Deferred.

    from txservices import RpcProxy, rpc

    class ServiceX:
        name = "service_x"
        y = RpcProxy("service_y")

        @rpc
        async def remote_method(self, value):
            return await self.y.append_identifier(value)

Everything that the author of a service needs can be imported from here, except for what needs an extra of its own:
``web.websocket``, ``web.sessions`` and ``once.sqlalchemy``. Each name is loaded when it is asked for, so that a service
loads only the modules that it uses. The map of the house is in README.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Which module has it. The modules of `rpc` and `timer` stand for the decorators of their names: see `DecoratorModule`.
WHERE = {
    "AuthToken": "txservices.contextdata",
    "BROADCAST": "txservices.events",
    "BasicAuth": "txservices.web.auth",
    "BearerAuth": "txservices.web.auth",
    "CircuitBreaker": "txservices.breakers",
    "CircuitOpen": "txservices.exceptions",
    "ClusterRpc": "txservices.rpc",
    "Config": "txservices.dependency_providers",
    "ContextDataProvider": "txservices.contextdata",
    "Cors": "txservices.web.cors",
    "DependencyProvider": "txservices.extensions",
    "Entrypoint": "txservices.extensions",
    "EventDispatcher": "txservices.events",
    "EventStream": "txservices.web.eventstream",
    "Exchange": "txservices.amqp.entities",
    "Extension": "txservices.extensions",
    "HttpClient": "txservices.httpclient",
    "HttpRequest": "txservices.web.messages",
    "HttpRequestHandler": "txservices.web.handlers",
    "Language": "txservices.contextdata",
    "Mount": "txservices.web.mounts",
    "Observer": "txservices.observers",
    "OnceStore": "txservices.once",
    "ProviderCollector": "txservices.extensions",
    "Publisher": "txservices.messaging",
    "Queue": "txservices.amqp.entities",
    "Reject": "txservices.retry",
    "RemoteError": "txservices.exceptions",
    "Retry": "txservices.retry",
    "RpcProxy": "txservices.rpc",
    "RpcTimeout": "txservices.exceptions",
    "SERVICE_POOL": "txservices.events",
    "SINGLETON": "txservices.events",
    "ServerSentEvent": "txservices.web.eventstream",
    "ServiceContainer": "txservices.containers",
    "ServiceRpc": "txservices.rpc",
    "ServiceRunner": "txservices.runners",
    "SharedExtension": "txservices.extensions",
    "Static": "txservices.web.static",
    "UnknownService": "txservices.exceptions",
    "UserAgent": "txservices.contextdata",
    "UserId": "txservices.contextdata",
    "WorkerContext": "txservices.containers",
    "consume": "txservices.messaging",
    "event_handler": "txservices.events",
    "http": "txservices.web.handlers",
    "in_reactor": "txservices.threads",
    "rpc": "txservices.rpc",
    "run_services": "txservices.runners",
    "timer": "txservices.timer",
}

__all__ = [*WHERE, "__version__"]  # all of them are text

if TYPE_CHECKING:
    from txservices.amqp.entities import Exchange as Exchange
    from txservices.amqp.entities import Queue as Queue
    from txservices.breakers import CircuitBreaker as CircuitBreaker
    from txservices.containers import ServiceContainer as ServiceContainer
    from txservices.containers import WorkerContext as WorkerContext
    from txservices.contextdata import AuthToken as AuthToken
    from txservices.contextdata import ContextDataProvider as ContextDataProvider
    from txservices.contextdata import Language as Language
    from txservices.contextdata import UserAgent as UserAgent
    from txservices.contextdata import UserId as UserId
    from txservices.dependency_providers import Config as Config
    from txservices.events import BROADCAST as BROADCAST
    from txservices.events import SERVICE_POOL as SERVICE_POOL
    from txservices.events import SINGLETON as SINGLETON
    from txservices.events import EventDispatcher as EventDispatcher
    from txservices.events import event_handler as event_handler
    from txservices.exceptions import CircuitOpen as CircuitOpen
    from txservices.exceptions import RemoteError as RemoteError
    from txservices.exceptions import RpcTimeout as RpcTimeout
    from txservices.exceptions import UnknownService as UnknownService
    from txservices.extensions import DependencyProvider as DependencyProvider
    from txservices.extensions import Entrypoint as Entrypoint
    from txservices.extensions import Extension as Extension
    from txservices.extensions import ProviderCollector as ProviderCollector
    from txservices.extensions import SharedExtension as SharedExtension
    from txservices.httpclient import HttpClient as HttpClient
    from txservices.messaging import Publisher as Publisher
    from txservices.messaging import consume as consume
    from txservices.observers import Observer as Observer
    from txservices.once import OnceStore as OnceStore
    from txservices.retry import Reject as Reject
    from txservices.retry import Retry as Retry
    from txservices.rpc import ClusterRpc as ClusterRpc
    from txservices.rpc import RpcProxy as RpcProxy
    from txservices.rpc import ServiceRpc as ServiceRpc
    from txservices.rpc import rpc as rpc
    from txservices.runners import ServiceRunner as ServiceRunner
    from txservices.runners import run_services as run_services
    from txservices.threads import in_reactor as in_reactor
    from txservices.timer import timer as timer
    from txservices.web.auth import BasicAuth as BasicAuth
    from txservices.web.auth import BearerAuth as BearerAuth
    from txservices.web.cors import Cors as Cors
    from txservices.web.eventstream import EventStream as EventStream
    from txservices.web.eventstream import ServerSentEvent as ServerSentEvent
    from txservices.web.handlers import HttpRequestHandler as HttpRequestHandler
    from txservices.web.handlers import http as http
    from txservices.web.messages import HttpRequest as HttpRequest
    from txservices.web.mounts import Mount as Mount
    from txservices.web.static import Static as Static


def __getattr__(name: str) -> Any:
    """The public name, from the module that has it."""
    where = WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(where)
    return module if where == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *WHERE})
