import hashlib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sample_results import server_figures, write_figures, write_results
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.cli.report import report
from capnp_rig.loadtest.report import write
from capnp_rig.loadtest.report.chart import Chart
from capnp_rig.loadtest.report.sources import source_of
from capnp_rig.loadtest.report.write import sources_of, write_page
from capnp_rig.loadtest.report.write import write_figures as write_pictures
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.writing import WrittenResult


def _hashes(folder: Path) -> dict[str, str]:
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.iterdir())
    }


def test_a_page_is_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "vega_script", lambda: "VEGA")
    found = sources_of(write_results(tmp_path / "results"), [])
    file = write_page(found, tmp_path / "new" / "page.html")
    first = file.read_bytes()
    assert write_page(found, file).read_bytes() == first
    # Links lead from the page to the results.
    assert b'href="../results/bench/run.json"' in first


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs the extra report")
    folder = tmp_path / "results" / "one"
    write_figures(folder, "bench-server", server_figures())
    found = sources_of(tmp_path, [folder])
    written = write_pictures(found, tmp_path / "a")
    assert {path.name for path in written} == {
        *("cpu-bench-server.svg", "cpu-bench-server.png"),
        *("call-parts.svg", "call-parts.png", "figures.md"),
    }
    write_pictures(found, tmp_path / "b")
    assert _hashes(tmp_path / "a") == _hashes(tmp_path / "b")


@pytest.mark.nightly
def test_every_chart_has_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs the extra report")
    found = sources_of(write_results(tmp_path / "results"), [])
    *pictures, text = write_pictures(found, tmp_path / "figures")
    images = re.findall(r"\]\(([^)]*\.svg)\)", text.read_text(encoding="utf-8"))
    assert {path.name for path in pictures if path.suffix == ".svg"} == {*images}
    assert all(
        path.read_bytes().startswith(b"\x89PNG") for path in pictures if path.suffix == ".png"
    )
    assert all(b"<svg" in path.read_bytes() for path in pictures if path.suffix == ".svg")


def test_without_the_extra_a_report_says_how_to_get_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vl_convert", reason="needs the extra report")
    folder = write_run_folder(tmp_path, make_run(Fake(seconds=3, calls=50)))
    assert write.write_report(source_of(folder, read_result(folder))) == []
    drawn = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert "Install capnp-rig[report]" not in drawn

    def missing(_chart: Chart) -> str:
        raise write.ExtraMissing("vl-convert is missing: install capnp-rig[report]")

    monkeypatch.setattr(write, "svg", missing)
    assert write.write_report(source_of(folder, read_result(folder))) == []
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" not in text
    assert "Install capnp-rig[report]" in text


def test_a_picture_that_cannot_be_drawn_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_chart: Chart) -> str:
        raise ValueError("Vega-Lite to SVG conversion failed:\nError: no such mark\n    at oi")

    monkeypatch.setattr(write, "svg", fail)
    folder = write_run_folder(tmp_path, make_run(Fake(seconds=3, calls=50)))
    why = "Vega-Lite to SVG conversion failed: Error: no such mark"
    said = [
        f"{folder / 'report.html'} lacks the picture {name}: {why}"
        for name in ("distribution-run", "time-run")
    ]
    assert write.write_report(source_of(folder, read_result(folder))) == said
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<svg" not in text
    assert f"This picture could not be drawn: {why}" in text
    assert "Install capnp-rig[report]" not in text
    shown = CliRunner().invoke(report, [str(folder)])
    assert shown.stderr == "".join(f"warning: {line}\n" for line in said)
    assert shown.stdout == f"{folder / 'report.html'}\n"
    result = read_result(folder)
    assert write.write_views(WrittenResult(folder, (), result))[-2:] == tuple(said)
