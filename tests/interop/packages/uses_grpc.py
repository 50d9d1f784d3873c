"""nameko-grpc: its server in the process, called by its own client in a worker, and by that of grpcio."""

from threading import Event

import grpc
from greetings_pb2 import Greeting, Name
from greetings_pb2_grpc import GreeterStub
from nameko import config
from nameko.rpc import RpcProxy, rpc
from nameko.utils.retry import retry
from nameko_grpc.client import Client
from nameko_grpc.dependency_provider import GrpcProxy
from nameko_grpc.entrypoint import Grpc
from nameko_grpc.errors import GrpcError

serve = Grpc.implementing(GreeterStub)
TARGET = f"//127.0.0.1:{config['GRPC_BIND_PORT']}"


class Patient(GrpcProxy):
    """It connects as it starts, and the server starts at the same time."""

    start = retry(for_exceptions=ConnectionRefusedError, max_attempts=1_000, delay=0.02)(GrpcProxy.start)


class ServesGrpc:
    """All four kinds of methods, and an error."""

    name = "serves_grpc"

    names = RpcProxy("uses_grpc")

    @serve
    def greet(self, request, context):
        context.set_trailing_metadata([("language", dict(context.invocation_metadata()).get("language", "none"))])
        return Greeting(text=self.names.greeting_for(request.name))

    @serve
    def greet_all(self, requests, context):
        return Greeting(text=", ".join(each.name for each in requests))

    @serve
    def spell(self, request, context):
        for letter in request.name:
            yield Greeting(text=letter)

    @serve
    def greet_each(self, requests, context):
        for each in requests:
            yield Greeting(text=f"hello {each.name}")

    @serve
    def fail(self, request, context):
        raise KeyError(request.name)


class UsesGrpc:
    """Calls it."""

    name = "uses_grpc"

    greeter = Patient(TARGET, GreeterStub)

    @rpc
    def greeting_for(self, name):
        return f"hello {name}"

    @rpc
    def by_dependency(self):
        return answers(self.greeter)

    @rpc
    def by_client(self):
        with Client(TARGET, GreeterStub) as greeter:
            return answers(greeter)

    @rpc
    def by_grpcio(self):
        with grpc.insecure_channel(TARGET.removeprefix("//")) as channel:
            return answers(GreeterStub(channel))

    @rpc
    def late(self):
        """The error of a call whose request doesn't end in time."""
        over = Event()

        def names():
            yield Name(name="ada")
            over.wait()

        try:
            return self.greeter.greet_all(names(), timeout=0.1).text
        except GrpcError as error:
            return error.code.name
        finally:
            over.set()


def answers(greeter):
    """The results of all methods."""
    ada, bob = Name(name="ada"), Name(name="bob")
    future = greeter.greet.future(ada, metadata=[("language", "en")])
    seen = [
        future.result().text,
        dict(future.trailing_metadata()).get("language"),
        greeter.greet_all(iter([ada, bob])).text,
        [each.text for each in greeter.spell(ada)],
        [each.text for each in greeter.greet_each(iter([ada, bob]))],
    ]
    try:
        greeter.fail(ada)
    except Exception as error:
        code = error.code() if callable(error.code) else error.code
        seen.append(code.name)
    return seen
