from collections.abc import Sequence

from capnp_rig.loadtest.report.codec_tables import codec_parts
from capnp_rig.loadtest.report.codec_view import CodecView
from capnp_rig.loadtest.report.document import Paragraph
from capnp_rig.loadtest.report.rivals import codec_rival, stack_rival
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict


def time(codec: str, value: float, size: int, verdict: Verdict = Verdict.OK) -> Figure:
    labels = {"kind": "time", "codec": codec, "message": "text", "contract": "build"}
    more = {"size_bytes": size, "subject": codec, "gc": False}
    return Figure(codec, value, "ns", "build", 12, verdict=verdict, labels=labels | more)


def ratio(stack: str, value: float, size: int, figure: str, verdict: str) -> Figure:
    labels = {"figure": figure, "baseline": stack, "stack": "capnp", "loop": "closed"}
    more = {"payload_kind": "text", "payload_bytes": size}
    return Figure(stack, value, "", "", 12, verdict=Verdict(verdict), labels=labels | more)


def said(parts: Sequence[Paragraph]) -> list[str]:
    return [part.text for part in parts]


CODECS = [
    *(time("wire", 10, 64), time("orjson", 5, 64), time("protobuf", 6, 64)),
    *(time("wire", 10, 256), time("orjson", 20, 256), time("protobuf", 60, 256)),
    *(time("wire", 10, 1024), time("orjson", 80, 1024), time("protobuf", 60, 1024)),
    # The reference's own is no rival, and a void time counts for nothing.
    *(time("pycapnp", 1, 64), time("json", 1, 64, Verdict.VOID)),
]


def test_the_fastest_of_the_other_codecs_is_named() -> None:
    (line,) = said(list(codec_rival(CodecView(CODECS))))
    assert line == (
        "Strongest rival: orjson, the fastest of the others in 2 of 3 cases; by the medians wire "
        "takes less time than orjson in 2, more in 1."
    )
    first, *others = codec_parts(CODECS)
    assert isinstance(first, Paragraph)
    assert first.text == line
    assert any("~ cannot tell" in part.text for part in others if isinstance(part, Paragraph))


def test_without_rivals_none_is_named() -> None:
    assert list(codec_rival(CodecView([time("wire", 10, 64)]))) == []
    assert list(codec_rival(CodecView([time("orjson", 10, 64)]))) == []
    assert list(stack_rival([])) == []


def test_the_best_of_the_other_stacks_is_named_by_cpu() -> None:
    figures = [
        ratio("json", 0.7, 32, "ratio_cpu", "slower"),
        ratio("grpc", 18.0, 32, "ratio_cpu", "faster"),
        ratio("json", 1.5, 4096, "ratio_cpu", "faster"),
        ratio("grpc", 16.0, 4096, "ratio_cpu", "faster"),
        ratio("grpc", 0.1, 32, "ratio_calls_per_s", "slower"),
    ]
    (line,) = said(list(stack_rival(figures)))
    assert line == (
        "Strongest rival: json, the best of the others in server CPU per call with 2 of "
        "2 payloads. capnp against it: slower in 1, faster in 1."
    )


def test_without_cpu_the_rates_decide() -> None:
    (line,) = said(list(stack_rival([ratio("grpc", 9.0, 32, "ratio_calls_per_s", "faster")])))
    assert line.startswith("Strongest rival: grpc, the best of the others in calls/s with 1 of 1 ")
