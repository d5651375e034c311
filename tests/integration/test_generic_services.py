"""A generic interface on both engines, called by our client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generic_services import GENERICS, NO_TEXT
from running_server import Running, running_server

from capnp_rig.client import Client
from capnp_rig.wire.rpc.interfaces import compile_interface

HERE = Path(__file__).resolve().parent.parent
STORE = compile_interface(GENERICS.TextStore)


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    service = ("--service", "generic_services:Texts", "--workers", "1", "--engine", request.param)
    with running_server(*service, cwd=HERE) as running:
        yield running


def test_inherited_methods_have_the_types_of_their_brand(server: Running) -> None:
    calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("get", {"key": "k"}, {"value": NO_TEXT + b"k"}),
        ("turn", {"first": "f", "second": NO_TEXT}, {"first": NO_TEXT, "second": "f"}),
        ("keep", {"thing": {"label": "l"}, "key": "k"}, {"thing": {"label": "lk"}}),
        ("all", {}, {"pairs": [{"first": "f", "second": NO_TEXT}]}),
        ("own", {"box": {"value": "v"}}, {"box": {"value": NO_TEXT, "label": "v"}}),
    ]
    with Client.connect(f"127.0.0.1:{server.port}", interface=STORE) as client:
        for method, params, expected in calls:
            assert client.call(method, params).to_dict() == expected
