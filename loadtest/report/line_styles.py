"""Colours and dashes: one look per name wherever it comes up (no I/O).

Families share a colour and differ by dash and marker: what is Cap'n Proto is blue, JSON orange,
MessagePack green, pickle purple. The colours are Okabe's and Ito's: those who see fewer of them
can tell them apart, on white and on black.
"""

from collections.abc import Mapping

from capnp_rig.loadtest.report.chart import DASH, DASHDOT, DOT, GREY, SOLID, Look

_BLUE, _SKY, _ORANGE, _AMBER = "#0072b2", "#56b4e9", "#d55e00", "#e69f00"
_GREEN, _PINK, _PURPLE, _BROWN = "#009e73", "#cc79a7", "#7e57c2", "#9c7a3c"

CODECS: Mapping[str, Look] = {
    "wire": Look(_BLUE),
    "pycapnp": Look(_SKY, marker="square"),
    "orjson": Look(_ORANGE, marker="diamond"),
    "msgspec JSON": Look(_AMBER, marker="triangle"),
    "msgspec MessagePack": Look(_GREEN, marker="triangle"),
    "protobuf": Look(_PINK, marker="square"),
    "pickle 5 out of band": Look(_PURPLE, marker="diamond"),
    "flatbuffers": Look(_BROWN, marker="cross"),
    "Arrow IPC": Look(_AMBER, DASH, "cross"),
    "pycapnp packed": Look(_SKY, DOT, "square"),
    "pycapnp keywords": Look(_SKY, DASH, "square"),
    "pycapnp view": Look(_SKY, DASHDOT, "square"),
    "json": Look(_ORANGE, DOT, "diamond"),
    "msgpack": Look(_GREEN, DOT, "triangle"),
    "pickle 5": Look(_PURPLE, DOT, "diamond"),
}
# Drawn from the start: one of each family, at its best.
SHOWN_CODECS = (
    "wire",
    "pycapnp",
    "orjson",
    "msgspec MessagePack",
    "protobuf",
    "pickle 5 out of band",
    "flatbuffers",
    "Arrow IPC",
)
FLOOR_LOOK = Look(GREY, DASH, "")
STACKS: Mapping[str, Look] = {
    "capnp": Look(_BLUE),
    "echo": Look(GREY),
    "selectors": Look(_BROWN),
    "json": Look(_ORANGE),
    "http": Look(_AMBER),
    "http1": Look(_AMBER),
    "http2": Look(_PINK),
    "grpc": Look(_PURPLE),
}
CLIENTS: Mapping[str, Look] = {
    "default": Look(_BLUE),
    "hedge": Look(_SKY, DASH),
    "round-robin": Look(_GREEN),
    "bare": Look(_ORANGE),
    "grpc.aio": Look(_PURPLE),
}
CLOCKS: Mapping[str, Look] = {
    "response": Look(_BLUE, marker=""),
    "service": Look(_ORANGE, DASH, ""),
    "lateness": Look(_BROWN, DOT, ""),
}
PERCENTILES: Mapping[str, Look] = {
    "p50": Look(_BLUE),
    "p99": Look(_ORANGE, marker="square"),
    "p99.9": Look(_PURPLE, marker="diamond"),
}
ENGINES: Mapping[str, Look] = {"wire": Look(_BLUE), "pycapnp": Look(_SKY)}
# The codec's own share stands out.
STAGES: Mapping[str, Look] = {
    "function call": Look(_BROWN),
    "codec": Look(_BLUE),
    "socket pair": Look(_AMBER),
    "TCP": Look(_ORANGE),
    "RPC": Look(_PURPLE),
}
_OTHERS = (_BLUE, _ORANGE, _GREEN, _PURPLE, _SKY, _PINK, _AMBER, _BROWN)
_DASHES = (SOLID, DASH, DOT, DASHDOT)
# Void dots are all grey, so that their shape has to tell them apart.
_MARKERS = ("circle", "square", "diamond", "triangle", "cross")


def look_of(name: str, known: Mapping[str, Look], number: int = 0) -> Look:
    """Return the look of a name; one that is not known gets the `number`-th of the others."""
    turn, at = divmod(number, len(_OTHERS))
    marker = _MARKERS[number % len(_MARKERS)]
    other = Look(_OTHERS[at], _DASHES[turn % len(_DASHES)], marker)
    return known.get(name, other)
