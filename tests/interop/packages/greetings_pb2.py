"""As protoc makes it of a file with one service, so that the tests need no protoc."""

from google.protobuf import descriptor_pb2, descriptor_pool, symbol_database
from google.protobuf.internal import builder

_sym_db = symbol_database.Default()

described = descriptor_pb2.FileDescriptorProto(name="greetings.proto", package="greetings", syntax="proto3")
for message, field in (("Name", "name"), ("Greeting", "text")):
    described.message_type.add(name=message).field.add(
        name=field,
        number=1,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
service = described.service.add(name="Greeter")
for method, many_in, many_out in (
    ("greet", False, False),
    ("greet_all", True, False),
    ("spell", False, True),
    ("greet_each", True, True),
    ("fail", False, False),
):
    service.method.add(
        name=method,
        input_type=".greetings.Name",
        output_type=".greetings.Greeting",
        client_streaming=many_in,
        server_streaming=many_out,
    )

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(described.SerializeToString())
builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, globals())
