"""The Python side of reverse.proto is what protoc makes of the file."""

from pathlib import Path

import pytest

pytest.importorskip("google.protobuf", reason="needs the extra stacks: protobuf")

from capnp_rig import schema
from capnp_rig.schema.reverse_proto import Blob, Chunk, MessageContent, describe

FOLDER = Path(schema.__file__).parent


def test_messages_are_written_as_protobuf_says() -> None:
    assert MessageContent(content="é").SerializeToString() == b"\x0a\x02\xc3\xa9"
    assert Chunk.FromString(b"\x0a\x01a").chunk == b"a"
    assert Blob(data=b"\xff").SerializeToString() == b"\x0a\x01\xff"


def test_the_descriptor_is_that_of_the_file(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="needs grpcio-tools")
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    compiled = tmp_path / "compiled"
    arguments = [f"-I{FOLDER}", f"--descriptor_set_out={compiled}", "reverse.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    (file,) = FileDescriptorSet.FromString(compiled.read_bytes()).file
    assert file == describe()
