"""Extensions as packages for nameko have them: they build on its proxies, and look into its containers."""

import logging
from functools import wraps

from nameko.extensions import DependencyProvider
from nameko.rpc import MethodProxy, RpcProxy, ServiceProxy, rpc


class Told(logging.Formatter):
    """LOGGING may name it, and then it is imported before the services are."""

    def format(self, record):
        return "told: " + super().format(record)


class RememberedMethod(MethodProxy):
    def __init__(self, *args, **kwargs):
        self.memory = kwargs.pop("memory")
        super().__init__(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        key = (self.service_name, self.method_name, args)
        if key not in self.memory:
            self.memory[key] = super().__call__(*args, **kwargs)
        return self.memory[key]


class RememberedService(ServiceProxy):
    def __getattr__(self, name):
        return RememberedMethod(self.worker_ctx, self.service_name, name, self.reply_listener, **self.options)


class Remembered(RpcProxy):
    """Calls of another service, each made once."""

    def __init__(self, target_service):
        self.target_service = target_service
        self.memory = {}

    def get_dependency(self, worker_ctx):
        return RememberedService(worker_ctx, self.target_service, self.rpc_reply_listener, memory=self.memory)


class Crowd(DependencyProvider):
    """How many workers there are; ``counted`` adds that to a method's result."""

    def get_dependency(self, worker_ctx):
        return len(self.container._worker_threads)

    def counted(self, method):
        @wraps(method)
        def wrapped(service, *args):
            return method(service, *args), getattr(service, self.attr_name)

        return wrapped


class Desk:
    name = "desk"

    stock = Remembered("stock")
    crowd = Crowd()

    @rpc
    @crowd.counted
    def ask(self, item):
        return self.stock.take(item)["item"]
