"""A service of a branded generic interface, for ``server run --service generic_services:Texts``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capnp_rig.schema import load_schema

GENERICS = load_schema(Path(__file__).resolve().parent / "data" / "generics.capnp")
NO_TEXT = b"\xff\x01\x02"


class Texts:
    """Answers with Data that are no text, where the other brand of the interface has texts."""

    interface = GENERICS.TextStore

    def get(self, params: Any) -> Mapping[str, bytes]:
        return {"value": NO_TEXT + params.key.encode()}

    def turn(self, params: Any) -> Mapping[str, Any]:
        return {"first": bytes(params.second), "second": params.first}

    def keep(self, params: Any) -> Mapping[str, Any]:
        return {"thing": {"label": params.thing.label + params.key}}

    def all(self, _params: Any) -> Mapping[str, Any]:
        return {"pairs": [{"first": "f", "second": NO_TEXT}]}

    def own(self, params: Any) -> Mapping[str, Any]:
        return {"box": {"value": NO_TEXT, "label": params.box.value}}
