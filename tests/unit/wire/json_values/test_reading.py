"""What JSON a struct takes; the types in full are in loadtest/workload/test_templated_params.py."""

from pathlib import Path
from typing import Any

import pytest

from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.json_values.reading import ParamsError, StructReader, parse_object

LOOSE = load_schema(Path(__file__).parents[3] / "data" / "unions.capnp").Loose.schema


def read(text: str) -> dict[str, Any]:
    item = parse_object(text, "params", "params")
    return StructReader(item.place).struct(LOOSE, item.fields, "Loose")


def test_null_is_a_capability_or_an_any_pointer_that_is_not_there() -> None:
    fields = read('{"any": null, "callback": null, "callbacks": [null]}')
    codec = compile_struct(LOOSE)
    view = codec.from_bytes(codec.to_bytes(fields))
    assert (view.any.is_null, view.callback, len(view.callbacks)) == (True, None, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"any": "x"}', "params: any: an AnyPointer cannot be given as JSON: leave it out"),
        (
            '{"callback": {}}',
            "params: callback: a capability cannot be given as JSON: leave it out",
        ),
        ('{"callbacks": [null, 1]}', "params: callbacks[1]: a capability cannot be given as JSON"),
        (
            '{"group": {"member": null}}',
            "params: group.member: an AnyPointer in a union cannot be given as JSON: leave it out",
        ),
        ('{"voids": [0]}', "params: voids[0]: expected null, not a number"),
    ],
)
def test_what_is_no_json_of_a_type_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        read(text)
    assert str(caught.value).startswith(message)
