from dataclasses import asdict
from typing import Any

import pytest

from capnp_rig.loadtest.report.labels import labelled
from capnp_rig.loadtest.results import Figure


def _labels(kind: str, *figures: Figure) -> list[dict[str, Any]]:
    document = {"figures": [asdict(figure) for figure in figures]}
    return [dict(one.labels) for one in labelled(kind, document, figures)]


def _figure(name: str, **more: Any) -> Figure:
    return Figure(**{"name": name, "value": 1.0, "unit": "x", "contract": "c", "n": 12, **more})


def test_labels_are_as_they_were_written() -> None:
    labels = {"codec": "wire", "size_bytes": 64, "message": "tensor"}
    (found,) = _labels("bench", _figure("time: open, 32 B, json", labels=labels))
    assert labels.items() <= found.items()
    assert found["kind"] == "time"


def test_only_a_bench_says_its_kind_in_the_name() -> None:
    assert _labels("bench-server", _figure("64 x 1: A/A, calls/s")) == [{}]


@pytest.mark.parametrize(
    "labels",
    [{"size_bytes": "64"}, {"size_bytes": True}, {"codec": 3}, {"payload_bytes": [1]}, {"k": -1}],
)
def test_labels_of_another_type_are_refused(labels: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the label"):
        _labels("bench", _figure("time: open, 32 B, json", labels=labels))
