"""Extensions as packages for nameko have them: they build on its proxies, and look into its containers."""

import logging
from functools import wraps

from kombu import Exchange, Queue
from nameko.amqp.publish import Publisher, UndeliverableMessage
from nameko.extensions import DependencyProvider
from nameko.messaging import Consumer
from nameko.rpc import MethodProxy, Rpc, RpcConsumer, RpcProxy, ServiceProxy

copies = Exchange("copies", type="headers")
blue = Queue("blue", exchange=copies, binding_arguments={"color": "blue", "x-match": "any"})


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


class Named(RpcConsumer):
    """A request may name its method in a header."""

    def handle_message(self, body, message):
        name = message.headers.get("method")
        key = message.delivery_info["routing_key"] if name is None else f"{self.container.service_name}.{name}"
        try:
            self.get_provider_for_method(key).handle_message(body, message)
        except Exception as error:
            self.handle_result(message, None, (type(error), error, None))


class Copied:
    """The bodies of messages are published again, by hand, before their workers end."""

    def handle_result(self, message, worker_ctx, result, exc_info):
        publisher = Publisher(self.container.config["AMQP_URI"])
        properties = {name: value for name, value in message.properties.items() if name != "expiration"}
        properties["headers"] = {**properties.pop("application_headers"), "color": "blue"}
        publisher.publish(message.body, exchange=copies, declare=[blue], mandatory=True, **properties)
        try:
            publisher.publish("red", exchange=copies, headers={"color": "red"}, mandatory=True)
        except UndeliverableMessage:
            return super().handle_result(message, worker_ctx, result and f"{result}, copied", exc_info)


class CopiedRpc(Copied, Rpc):
    rpc_consumer = Named()


class CopiedConsumer(Copied, Consumer):
    pass


rpc = CopiedRpc.decorator
consume = CopiedConsumer.decorator


class Desk:
    name = "desk"

    stock = Remembered("stock")
    crowd = Crowd()

    @rpc
    @crowd.counted
    def ask(self, item):
        return self.stock.take(item)["item"]

    @rpc
    def say(self, word):
        return word

    @consume(Queue("desk"))
    def hear(self, word):
        return word
