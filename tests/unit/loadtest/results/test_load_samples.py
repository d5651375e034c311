import copy
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.results import ResultError
from capnp_rig.loadtest.results.load_samples import (
    read_figures,
    read_load,
    read_result,
    stored_verdict,
    window_samples,
)
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, codes_of
from capnp_rig.loadtest.stats.tally import EndpointChange, Report, Times, Window

_SMALL = Fake(seconds=3, calls=20)


def _report(*, final: bool = True) -> Report:
    window = Window(
        {"m": Times(Histogram.of([5_000, 6_000]), failed=Histogram.of([7_000]))},
        connects=Histogram.of([9_000]),
        failures={"Disconnected: gone": 1},
        ended=1,
    )
    several = replace(window, endpoints={"a:1": window, "b:2": Window(ended=2)})
    return Report(
        {-1: Window({"m": Times(Histogram.of([4_000]))}), 0: window, 2: several},
        final=final,
        changes=(EndpointChange("a:1", -0.5, is_lost=True),),
    )


def _entry(repeat: int, process: int, report: Report) -> dict[str, Any]:
    plain = report.to_json()
    del plain["windows"]
    return {"repeat": repeat, "process": process, **plain, "busy": 0.5, "seconds": 3.0}


def test_reports_come_back_whole() -> None:
    reports = {(0, 0): _report(), (0, 1): _report(final=False), (1, 0): Report(scheduled=5, held=2)}
    generators = [_entry(*key, report) for key, report in reports.items()]
    observed = [{"server_cpu_s": None, "steal": None}] * 2
    samples = [one for key, report in reports.items() for one in window_samples(*key, report)]
    plain = json.loads(json.dumps([{"generators": generators, "observed": observed}, samples]))
    assert read_load(*plain).reports == reports


def test_warm_up_and_seconds_are_marked() -> None:
    samples = list(window_samples(4, 7, _report()))
    assert [(one["sample"], one["repeat"], one["process"]) for one in samples] == [
        ("window", 4, 7)
    ] * 3
    assert [one["second"] for one in samples] == [-1, 0, 2]


def test_a_run_that_was_read_sums_up_to_what_was_recorded() -> None:
    written = make_run(Fake(seconds=3, calls=50, repeats=2, failures=(("RemoteError: no", 2),)))
    load = read_load(written.document, written.samples)
    summary = load.summary()
    assert summary.response == Histogram.of(written.raw["response"])
    assert summary.lateness == Histogram.of(written.raw["lateness"])
    assert summary.to_json() == written.document["summary"]
    assert summary.failures == {"RemoteError: no": 8}
    assert list(load.repeats) == [0, 1]
    halves = [load.summary([number]) for number in (0, 1)]
    assert sum(half.calls for half in halves) == summary.calls


def test_it_survives_its_folder(tmp_path: Path) -> None:
    written = make_run(_SMALL)
    result = read_result(write_run_folder(tmp_path, written))
    assert result.samples is not None
    assert read_load(result.document, result.samples) == read_load(
        written.document, written.samples
    )


def test_what_was_observed_may_be_that_of_a_single_repeat() -> None:
    written = make_run(_SMALL)
    document = written.document | {"observed": {"server_cpu_s": 1.5, "steal": None}}
    (repeat,) = read_load(document, written.samples).repeats.values()
    assert (repeat.server_cpu_s, repeat.steal, repeat.seconds) == (1.5, None, 3.0)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda plain: plain.update({name: value})


def _counts(wrong: Any) -> Callable[[dict[str, Any]], None]:
    def change(plain: dict[str, Any]) -> None:
        plain["calls"]["MessageStream.read"]["service"]["counts"] = wrong

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("second", -2), "line 1 is damaged: -2 is not a second"),
        (_set("second", "1"), "line 1 is damaged: '<=' not supported|is not a second"),
        (_set("process", 9), r"line 1 is damaged: \(0, 9\) is missing"),
        (_set("calls", None), "line 1 is damaged"),
        (_set("failures", {"x": -1}), "line 1 is damaged: -1 is not a non-negative integer"),
        (
            _set("failures", {"x": "many"}),
            "line 1 is damaged: 'many' is not a non-negative integer",
        ),
        (_set("ended", -1), "line 1 is damaged: -1 is not a non-negative integer"),
        (_set("endpoints", [1]), "line 1 is damaged"),
        (_set("endpoints", {"a:1": {}}), "line 1 is damaged: 'calls' is missing"),
        (_set("connects", {}), "line 1 is damaged: 'edges' is missing"),
        (_counts([[1600, 1]]), "the counts make 1, not"),
        (_counts([[-5, 20]]), "a bucket does not exist"),
        (_counts([[1600, -20]]), "a count is not a non-negative integer"),
        (_counts(7), "line 1 is damaged"),
    ],
)
def test_a_damaged_window_is_named(change: Callable[[dict[str, Any]], None], message: str) -> None:
    written = make_run(_SMALL)
    samples = copy.deepcopy(written.samples)
    sample = samples[1]
    change(sample)
    with pytest.raises(
        ResultError, match=f"samples.jsonl.gz, {message}" if "line" in message else message
    ):
        read_load(written.document, [sample, *samples[2:]])


def test_a_second_that_comes_twice_is_refused() -> None:
    written = make_run(_SMALL)
    with pytest.raises(ResultError, match="second -1 comes twice"):
        read_load(written.document, [written.samples[0], *written.samples])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"sample": "usage", "repeat": 0}, "'t_s' is missing"),
        ({"sample": "machine", "repeat": 0, "t_s": 1, "steal_s": "x", "total_s": 1}, "'x' is no"),
        ({"sample": "machine", "repeat": 0, "t_s": 1e300, "steal_s": 1, "total_s": 1}, "far from"),
        (
            {"sample": "machine", "repeat": 0, "t_s": 10**400, "steal_s": 1, "total_s": 1},
            "too large",
        ),
        ({"sample": "scrape", "repeat": 0, "t_s": 1, "url": "u"}, "'values' is missing"),
        (
            {"sample": "scrape", "repeat": 0, "t_s": 1, "url": "u", "values": {"a": "x"}},
            "'x' is no",
        ),
        ({"sample": "scrape", "repeat": 0, "t_s": 1e300, "url": "u", "values": {}}, "far from"),
        ({}, "'sample' is missing"),
    ],
)
def test_a_damaged_line_is_named(sample: dict[str, Any], message: str) -> None:
    written = make_run(_SMALL)
    with pytest.raises(ResultError, match=f"samples.jsonl.gz, line 1 is damaged: .*{message}"):
        read_load(written.document, [sample, *written.samples])


@pytest.mark.parametrize(
    "change",
    [
        _set("generators", None),
        _set("generators", []),
        _set("generators", [{}]),
        lambda document: document["generators"][0].update(changes=[{"endpoint": "a:1"}]),
        lambda document: document["generators"][0].update(
            changes=[{"endpoint": "a:1", "at_s": float("nan"), "is_lost": True}]
        ),
        _set("observed", []),
        _set("observed", [{"server_cpu_s": 1, "steal": 0, "endpoint_cpu_s": {"a:1": "much"}}]),
        _set("observed", [{}]),
        _set("observed", [{"server_cpu_s": "much", "steal": 0}]),
        _set("observed", [{"server_cpu_s": 1, "steal": 0, "server": [{"name": "worker 0"}]}]),
        _set("observed", [{"server_cpu_s": 1, "steal": 0, "server": 3}]),
        _set("observed", [{"server_cpu_s": 1, "steal": 0, "scrapes": [{"url": "u"}]}]),
    ],
)
def test_a_damaged_document_is_named(change: Callable[[dict[str, Any]], None]) -> None:
    written = make_run(_SMALL)
    document = copy.deepcopy(written.document)
    change(document)
    with pytest.raises(ResultError, match=r"run\.json is damaged: "):
        read_load(document, written.samples)


@pytest.mark.parametrize("seconds", [-1, 1e12, float("nan"), "3", None])
def test_an_impossible_length_is_refused(seconds: Any) -> None:
    written = make_run(_SMALL)
    written.document["generators"][0]["seconds"] = seconds
    with pytest.raises(ResultError, match=r"run\.json is damaged"):
        read_load(written.document, written.samples)


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _rewritten(content: bytes) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(content) and None


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("run.json", _truncated, "run.json is damaged"),
        ("run.json", _rewritten(b"\xff\xfe"), "run.json is damaged"),
        ("run.json", _rewritten(b"[]"), "run.json is damaged"),
        ("run.json", _rewritten(b'{"a":' * 100_000), "run.json is damaged"),
        ("run.json", _rewritten(b"{}"), "is not a 'capnp-rig run' of version"),
        ("samples.jsonl.gz", _truncated, "samples.jsonl.gz is damaged"),
        ("samples.jsonl.gz", _rewritten(b"no gzip"), "samples.jsonl.gz is damaged: Not a gzipped"),
        ("samples.jsonl.gz", _rewritten(gzip.compress(b"{")), "samples.jsonl.gz is damaged"),
        ("samples.jsonl.gz", _rewritten(gzip.compress(b"[]\n")), "a line is not a JSON object"),
        ("samples.jsonl.gz", Path.unlink, "samples.jsonl.gz is missing"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    write_run_folder(tmp_path, make_run(_SMALL))
    damage(tmp_path / name)
    with pytest.raises(ResultError, match=message) as raised:
        read_result(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "2.0"),
        ("figures", [{"name": "x"}]),
        ("figures", [7]),
        ("figures", None),
        ("environment", []),
        ("summary", {"verdict": "void"}),
        ("summary", {"verdict": "void", "reasons": "none"}),
        ("summary", 3),
    ],
)
def test_a_document_that_is_none_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    written = make_run(_SMALL)
    written.document[name] = value
    write_run_folder(tmp_path, written)
    with pytest.raises(ResultError, match=str(tmp_path)):
        read_result(tmp_path)


def test_a_folder_without_a_document_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_result(tmp_path)


# --- figures ---------------------------------------------------------------------------------


def _stored(*figures: Figure, kind: str = "bench", **more: Any) -> list[Figure]:
    return read_figures({"kind": kind, "figures": [one.to_json() | more for one in figures]})


def _figure(name: str, **labels: Any) -> Figure:
    reasons = (Reason.of(ReasonCode.CALLS_FAILED, count=3),)
    return Figure(name, 1.0, "x", "c", 12, verdict=Verdict.VOID, reasons=reasons, labels=labels)


def test_a_figure_is_read_as_it_was_written() -> None:
    figure = _figure("open, 32 B, json", kind="time", codec="wire", size_bytes=64)
    assert _stored(figure) == [figure]


def test_an_earlier_figure_has_its_codes_in_words_and_its_kind_in_the_name() -> None:
    figure = _figure("time: open, 32 B, json", codec="wire")
    (found,) = _stored(figure, reason_codes=None)
    assert (found.kind, found.reasons) == (FigureKind.TIME, figure.reasons)
    (found,) = _stored(_figure("time: x"), kind="bench-server")
    assert "kind" not in found.labels


@pytest.mark.parametrize(
    "labels",
    [
        *({"size_bytes": "64"}, {"size_bytes": True}, {"codec": 3}, {"payload_bytes": [1]}),
        *({"k": -1}, {"kind": "unheard-of"}),
    ],
)
def test_labels_of_another_type_are_refused(labels: dict[str, Any]) -> None:
    with pytest.raises(ResultError, match="is damaged"):
        _stored(_figure("x", **labels))


def test_the_verdict_of_a_run_is_read_with_its_codes() -> None:
    summary = make_run(Fake(seconds=3, calls=50, failures=(("x", 2),))).document["summary"]
    verdict, reasons = stored_verdict({"summary": summary}) or (None, ())
    assert verdict is Verdict.FAILED
    assert ReasonCode.CALLS_FAILED in codes_of(reasons)
    earlier = {"verdict": "void", "reasons": [reason.text for reason in reasons]}
    found = stored_verdict({"summary": earlier})
    assert found is not None
    assert codes_of(found[1]) == codes_of(reasons)
