"""The messages of ``reverse.proto``, for the gRPC stack, its client and its users.

The messages are described here once more, instead of in a module that protoc generates. Such a
module refuses to run with a protobuf older than the generator's or more than a major version newer,
and nobody lints or reads it. The classes are the same. A test compares this file with what protoc
makes of ``reverse.proto``.
"""

from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "capnp_rig.MessageStream"
READ = "Read"
REVERSE_BYTES = "ReverseBytes"


def describe() -> FileDescriptorProto:
    """Return the descriptor of ``reverse.proto``."""
    file = FileDescriptorProto(name="reverse.proto", package="capnp_rig", syntax="proto3")
    request = file.message_type.add(name="MessageContent")
    _add_field(request, "content", FieldDescriptorProto.TYPE_STRING)
    reply = file.message_type.add(name="Chunk")
    _add_field(reply, "chunk", FieldDescriptorProto.TYPE_BYTES)
    blob = file.message_type.add(name="Blob")
    _add_field(blob, "data", FieldDescriptorProto.TYPE_BYTES)
    service = file.service.add(name="MessageStream")
    service.method.add(
        name=READ, input_type=".capnp_rig.MessageContent", output_type=".capnp_rig.Chunk"
    )
    service.method.add(
        name=REVERSE_BYTES, input_type=".capnp_rig.Blob", output_type=".capnp_rig.Blob"
    )
    return file


def _add_field(message: Any, name: str, kind: FieldDescriptorProto.Type.ValueType) -> None:
    message.field.add(
        name=name, number=1, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL, json_name=name
    )


def _message_class(name: str) -> Any:
    return GetMessageClass(_pool.FindMessageTypeByName(f"capnp_rig.{name}"))


# A pool of our own: the default one would clash with a generated module of the same file.
_pool = DescriptorPool()
_pool.Add(describe())  # type: ignore[no-untyped-call, unused-ignore]
MessageContent: Any = _message_class("MessageContent")
Chunk: Any = _message_class("Chunk")
Blob: Any = _message_class("Blob")
