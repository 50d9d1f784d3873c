"""As grpc's plugin of protoc makes it of the service in ``greetings_pb2``."""

import greetings_pb2


class GreeterStub:
    def __init__(self, channel):
        for method in greetings_pb2.DESCRIPTOR.services_by_name["Greeter"].methods:
            sides = (method.client_streaming, method.server_streaming)
            begin = getattr(channel, "_".join("stream" if side else "unary" for side in sides))
            call = begin(
                f"/greetings.Greeter/{method.name}",
                request_serializer=greetings_pb2.Name.SerializeToString,
                response_deserializer=greetings_pb2.Greeting.FromString,
            )
            setattr(self, method.name, call)
