import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.results import ResultError
from capnp_rig.loadtest.results.hdr_files import HdrMissing, hdr_of, write_hdr_files
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.writing import write_run, write_samples
from capnp_rig.loadtest.stats.histogram import Histogram

hdrh = pytest.importorskip("hdrh.histogram")
hdrh_log = pytest.importorskip("hdrh.log")

# Ours at most 1/128 too high, and what HdrHistogram adds at three digits.
_ERROR = 1 / 128 + 0.001


def _write(folder: Path) -> list[Path]:
    return write_hdr_files(folder, read_result(folder))


def _read(file: Path) -> list[tuple[str, float, float, Any]]:
    reader = hdrh_log.HistogramLogReader(str(file), hdrh.HdrHistogram(1, 3_600_000_000_000, 3))
    found = []
    while (each := reader.get_next_interval_histogram()) is not None:
        found.append((each.get_tag(), each.get_start_time_stamp(), each.get_end_time_stamp(), each))
    reader.input_file.close()
    return found


def _merged(intervals: list[tuple[str, float, float, Any]], tag: str) -> Any:
    whole = hdrh.HdrHistogram(1, 3_600_000_000_000, 3)
    for one in intervals:
        if one[0] == tag:
            whole.add(one[3])
    return whole


@pytest.mark.parametrize("is_open_loop", [True, False])
def test_the_log_has_every_second_of_every_clock(tmp_path: Path, *, is_open_loop: bool) -> None:
    written = make_run(Fake(seconds=4, calls=200, repeats=2, is_open_loop=is_open_loop))
    log, _ = _write(write_run_folder(tmp_path, written))
    found = _read(log)
    assert [one[0] for one in found] == ["response", "service", "lateness"] * 8
    started_ms = 1_795_262_400_000
    assert [one[1] - started_ms for one in found[::3]] == [1000 * second for second in range(8)]
    assert {one[2] - one[1] for one in found} == {1000}
    assert all(one[3].get_total_count() == 400 for one in found) or not is_open_loop
    for tag in ("response", "service") if is_open_loop else ("service",):
        times = sorted(written.raw[tag])
        whole = _merged(found, tag)
        assert whole.get_total_count() == len(times)
        for percent in (1, 50, 90, 99, 99.9, 100):
            # HdrHistogram takes the nearest rank, ours is the next.
            exact = times[max(0, int(percent / 100 * len(times) + 0.5) - 1)]
            assert exact * 0.998 <= whole.get_value_at_percentile(percent) <= exact * (1 + _ERROR)


def test_the_warm_up_is_left_out(tmp_path: Path) -> None:
    # It took 9 ms a call, thrice as long as anything else.
    log, _ = _write(write_run_folder(tmp_path, make_run(Fake(seconds=3, calls=50))))
    assert max(one[3].get_max_value() for one in _read(log)) < 4_000_000


def test_an_interval_names_its_maximum_in_ms(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=1, calls=50, processes=1))
    log, _ = _write(write_run_folder(tmp_path, written))
    line = next(
        line for line in log.read_text(encoding="utf-8").splitlines() if "Tag=service" in line
    )
    assert float(line.split(",")[3]) == pytest.approx(max(written.raw["service"]) / 1e6, abs=1e-6)


def test_the_distribution_ends_with_what_it_counted(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=200))
    _, distribution = _write(write_run_folder(tmp_path, written))
    lines = distribution.read_text(encoding="utf-8").splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:] if not line.startswith("#")]
    response = sorted(written.raw["response"])
    assert (rows[-1][1], rows[-1][2]) == ("1.000000000000", str(len(response)))
    assert float(rows[-1][0]) == pytest.approx(response[-1] / 1000, rel=_ERROR)
    by_share = {float(row[1]): (float(row[0]), int(row[2])) for row in rows}
    for share in (0.1, 0.5, 0.75, 0.9375):
        value_us, count = by_share[share]
        exact_us = response[math.ceil(share * len(response)) - 1] / 1000
        assert exact_us <= value_us + 0.001 <= exact_us * (1 + _ERROR)
        assert count == sum(one / 1000 <= value_us + 0.001 for one in response)
    assert rows[5] == [*rows[5][:3], "2.00"]
    mean_us = sum(response) / len(response) / 1000
    deviation_us = (sum((one / 1000 - mean_us) ** 2 for one in response) / len(response)) ** 0.5
    footer = dict(
        part.strip(" #[]").split("=") for line in lines if "#[M" in line for part in line.split(",")
    )
    plain = {name.strip(): float(value) for name, value in footer.items()}
    assert plain["Mean"] == pytest.approx(mean_us, rel=_ERROR)
    assert plain["StdDeviation"] == pytest.approx(deviation_us, rel=3 * _ERROR)
    assert plain["Max"] == pytest.approx(response[-1] / 1000, abs=1e-3)
    assert plain["TotalCount"] == len(response)
    assert lines[-1] == "#[Unit    = µs, response time]"


def test_a_closed_loop_says_so(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=2, calls=20, is_open_loop=False))
    log, distribution = _write(write_run_folder(tmp_path, written))
    assert "closed loop" in log.read_text(encoding="utf-8").splitlines()[0]
    assert distribution.read_text(encoding="utf-8").endswith("service time, closed loop]\n")


def test_times_out_of_range_are_counted() -> None:
    found = hdr_of(Histogram.of([0, 10, 5_000, 200_000_000_000, 10**16]))
    assert found.get_total_count() == 5
    assert found.get_max_value() == pytest.approx(3.6e12, rel=0.001)
    assert found.get_count_at_value(999) == 2
    assert hdr_of(Histogram.of([0, 0])).get_max_value() == 0
    assert hdr_of(Histogram()).get_total_count() == 0


def test_seconds_without_an_answer_are_in_the_log(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=20, processes=1))
    samples = [one for one in written.samples if one.get("second") != 1]
    folder = write_run_folder(tmp_path, written)
    write_samples(folder, samples)
    found = _read(_write(folder)[0])
    assert [one[3].get_total_count() for one in found[::3]] == [20, 0, 20]


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    folder = write_run_folder(tmp_path, make_run(Fake(seconds=2, calls=20)))
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        HdrMissing, match=r"hdrhistogram is missing: install capnp-rig\[loadtest\]$"
    ):
        _write(folder)
    assert not (folder / "latency.hlog").exists()
    assert (folder / "latency.hgrm").exists()


def test_what_is_no_load_run_is_refused(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path, make_run(Fake(seconds=2, calls=20)))
    document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    write_run(folder, document | {"kind": "bench"})
    with pytest.raises(ResultError, match="a bench is no load run"):
        _write(folder)
