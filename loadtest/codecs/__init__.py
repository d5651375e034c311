"""The codecs that `loadtest bench` compares, a module per format, each at its best settings.

`messages` has the values that are sent, `reading` the readers that all share, `codec` the
contracts. The first of `CODECS` that a ratio is taken against is `BASELINE`.
"""

from importlib.util import find_spec

from capnp_rig.loadtest.codecs.codec import Codec
from capnp_rig.loadtest.codecs.flatbuffers_tables import FLATBUFFERS
from capnp_rig.loadtest.codecs.json_documents import JSON, ORJSON
from capnp_rig.loadtest.codecs.msgpack_maps import MSGPACK
from capnp_rig.loadtest.codecs.msgspec_typed import MSGSPEC_JSON, MSGSPEC_MSGPACK
from capnp_rig.loadtest.codecs.pickle_5 import PICKLE, PICKLE_OUT_OF_BAND
from capnp_rig.loadtest.codecs.protobuf_upb import PROTOBUF
from capnp_rig.loadtest.codecs.pycapnp_messages import (
    PYCAPNP,
    PYCAPNP_KEYWORDS,
    PYCAPNP_PACKED,
    PYCAPNP_VIEW,
)
from capnp_rig.loadtest.codecs.wire_views import WIRE

# pyarrow is an extra of its own: it is larger than all the others together.
_ARROW: list[Codec] = []
if find_spec("pyarrow") is not None:
    from capnp_rig.loadtest.codecs.arrow_batches import ARROW

    _ARROW.append(ARROW)

CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        WIRE,
        PYCAPNP,
        PYCAPNP_PACKED,
        PYCAPNP_KEYWORDS,
        PYCAPNP_VIEW,
        JSON,
        ORJSON,
        MSGSPEC_JSON,
        MSGSPEC_MSGPACK,
        MSGPACK,
        PROTOBUF,
        PICKLE,
        PICKLE_OUT_OF_BAND,
        FLATBUFFERS,
        *_ARROW,
    )
}
