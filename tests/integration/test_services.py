"""The same service class on both engines, called by our client: equal results, equal errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_server import Running, running_server

from capnp_rig.client import Client, RemoteError
from capnp_rig.schema import load_schema
from capnp_rig.wire.rpc.interfaces import compile_interface

HERE = Path(__file__).resolve().parent.parent
TENSOR = compile_interface(load_schema("tensor.capnp").TensorService)
RARE = compile_interface(load_schema(HERE / "data" / "kinds.capnp").RareService)


def served(service: str, engine: str) -> Any:
    return running_server("--service", service, "--workers", "1", "--engine", engine, cwd=HERE)


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def tensor_server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with served("capnp_rig.server.services.tensor:Tensor", request.param) as server:
        yield server


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def rare_server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with served("sample_services:Rare", request.param) as server:
        yield server


def describe(server: Running, values: "np.ndarray[Any, Any]", shape: list[int]) -> Any:
    address = f"127.0.0.1:{server.port}"
    with Client.connect(address, interface=TENSOR) as client:
        tensor = {"name": "t", "shape": shape, "data": values.tobytes()}
        return client.call("describe", {"tensor": tensor}).to_dict()


@pytest.mark.parametrize("shape", [[3, 4], [1], [700_000], [2, 0, 3]])
def test_a_tensor_comes_back_with_its_statistics(tensor_server: Running, shape: list[int]) -> None:
    values = np.linspace(-1, 1, int(np.prod(shape)), dtype="<f4").reshape(shape)
    found = describe(tensor_server, values, shape)
    assert found["tensor"] == {"name": "t", "shape": shape, "data": values.tobytes()}
    assert found["statistics"]["count"] == values.size
    if values.size:
        assert found["statistics"]["minimum"] == float(values.min())
        assert found["statistics"]["mean"] == pytest.approx(float(values.mean(dtype="f8")))


def test_a_tensor_of_the_wrong_size_is_the_services_own_error(tensor_server: Running) -> None:
    with pytest.raises(RemoteError, match=r"shape \[5\] needs 20 bytes, not 4"):
        describe(tensor_server, np.zeros(1, dtype="<f4"), [5])


VALUES: dict[str, Any] = {
    "number": 7,
    "texts": ["a", "", "Grüße"],
    "inners": [{"number": 1, "name": "x"}],
    "flags": [True, False],
    "colours": ["red", "blue"],
    "group": {"low": 1, "high": -2},
    "second": "chosen",
    "inner": {"number": 3, "name": "plain"},
    "nested": [[1, 2], [], [3]],
}


def test_rare_fields_go_there_and_back_on_both_engines(rare_server: Running) -> None:
    with Client.connect(f"127.0.0.1:{rare_server.port}", interface=RARE) as client:
        results = client.call("echo", {"rare": VALUES})
        # A text that is not set has its default.
        assert results.rare.to_dict() == {**VALUES, "greeting": "hi"}
        assert results.active == "second"


def test_inherited_and_async_methods_are_served(rare_server: Running) -> None:
    with Client.connect(f"127.0.0.1:{rare_server.port}", interface=RARE) as client:
        assert client.call("base", {}).to_dict() == {}
        assert client.call("later", {"name": "n" * 100_000}).to_dict() == {"name": "n" * 100_000}
