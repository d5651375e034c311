from pathlib import Path

import capnp
import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire import compile_interface

SCHEMA = load_schema(Path(__file__).parents[3] / "data" / "streams.capnp")


@pytest.mark.parametrize(
    ("interface", "streaming"),
    [("Upload", {"write"}), ("Sink", {"put"}), ("TextSink", {"put", "write"})],
)
def test_a_method_tells_whether_it_is_streaming(interface: str, streaming: set[str]) -> None:
    methods = compile_interface(getattr(SCHEMA, interface)).methods.values()
    assert {method.name for method in methods if method.is_streaming} == streaming
    assert {method.name for method in methods} - streaming


def test_the_params_of_a_streaming_method_are_those_of_its_brand() -> None:
    put = compile_interface(SCHEMA.TextSink).methods["put"]
    assert (put.interface_id, put.method_id) == (SCHEMA.Sink.schema.node.id, 0)
    sink, _ = SCHEMA.TextSink.schema.superclasses
    params = capnp._StructModule(sink.methods["put"].param_type, "put")
    with params.from_bytes(put.params.to_bytes({"item": "x"})) as reader:
        assert reader.item == "x"


def test_the_results_of_a_streaming_method_are_empty() -> None:
    results = compile_interface(SCHEMA.Upload).methods["write"].results
    assert results.fields == ()
    assert results.from_bytes(results.to_bytes({})).to_dict() == {}
