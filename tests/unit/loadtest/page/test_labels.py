from dataclasses import asdict
from typing import Any

import pytest

from loadtest.page.labels import labelled
from loadtest.results import Figure


def _labels(kind: str, *figures: Figure) -> list[dict[str, Any]]:
    document = {"figures": [asdict(figure) for figure in figures]}
    return [dict(one.labels) for one in labelled(kind, document, figures)]


def _figure(name: str, **more: Any) -> Figure:
    return Figure(**{"name": name, "value": 1.0, "unit": "x", "contract": "c", "n": 12, **more})


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (
            *("bench", "time: open+read 100%, 32 B, json, GC on"),
            {
                "kind": "time",
                "codec": "json",
                "subject": "json",
                "message": "text",
                "contract": "open+read 100%",
                "size_bytes": 32,
                "k": 100,
                "gc": True,
            },
        ),
        (
            *("bench", "time: floor, 65536 B, memcpy"),
            {"codec": "memcpy", "message": "", "contract": "floor", "k": None, "gc": False},
        ),
        (
            *("bench", "time: open, 32 B, orjson again"),
            {"codec": "orjson", "subject": "orjson again", "k": 0},
        ),
        (
            *("bench", "ratio: build+encode, 65536 B, wire, against orjson"),
            {"kind": "ratio", "codec": "wire", "baseline": "orjson", "size_bytes": 65536},
        ),
        ("bench", "A/A: encode, 32 B, orjson", {"kind": "A/A", "baseline": "orjson"}),
        (
            *("bench-server", "8 x 16: wire service time p99"),
            {"kind": "value", "load": "8 x 16", "subject": "wire", "what": "service time p99"},
        ),
        (
            *("bench-server", "64 x 1: wire over pycapnp, server CPU per call"),
            {
                "kind": "ratio",
                "load": "64 x 1",
                "subject": "wire",
                "baseline": "pycapnp",
                "what": "server CPU per call",
            },
        ),
        (
            *("bench-locust", "16 x 1: A/A, calls/s"),
            {"kind": "A/A", "load": "16 x 1", "what": "calls/s"},
        ),
        (
            *("bench-server", "wire: memory of 10,000 idle connections"),
            {"kind": "idle", "subject": "wire"},
        ),
        (
            *("bench-server", "in memory: served call, 16 in a read"),
            {"kind": "in memory", "case": "served call, 16 in a read"},
        ),
    ],
)
def test_names_of_older_results_say_what_they_are(
    kind: str, name: str, expected: dict[str, Any]
) -> None:
    (found,) = _labels(kind, _figure(name))
    assert expected.items() <= found.items()


def test_labels_that_were_written_count_more_than_names() -> None:
    labels = {"codec": "wire", "size_bytes": 64, "message": "tensor"}
    (found,) = _labels("bench", _figure("time: open, 32 B, json", labels=labels))
    assert labels.items() <= found.items()
    assert found["kind"] == "time"


def test_what_no_name_is_known_for_has_no_labels() -> None:
    assert _labels("run", _figure("response time p99")) == [{}]


def test_a_ratio_knows_its_floor() -> None:
    names = ["64 x 1: A/A, calls/s", "64 x 1: a over b, calls/s", "8 x 16: a over b, calls/s"]
    same = _figure(names[0], value=1.0, low=0.98, high=1.01)
    found = _labels("bench-server", same, *map(_figure, names[1:]))
    assert found[1]["floor"] == pytest.approx(1 / 0.98 - 1)
    assert found[2]["floor"] is None


def test_floors_of_a_bench_go_by_baseline() -> None:
    same = _figure("A/A: open, 32 B, orjson", low=0.99, high=1.05)
    ratios = [_figure(f"ratio: open, 32 B, wire, against {name}") for name in ("orjson", "json")]
    found = _labels("bench", same, *ratios)
    assert found[1]["floor"] == pytest.approx(0.05)
    assert found[2]["floor"] is None


@pytest.mark.parametrize(
    "labels",
    [{"size_bytes": "64"}, {"size_bytes": True}, {"codec": 3}, {"payload_bytes": [1]}, {"k": -1}],
)
def test_labels_of_another_type_are_refused(labels: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the label"):
        _labels("bench", _figure("time: open, 32 B, json", labels=labels))
