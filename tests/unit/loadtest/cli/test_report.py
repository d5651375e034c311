import json
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sample_results import server_figures, write_figures
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.cli.compare import compare_results
from capnp_rig.loadtest.cli.listing import list_command
from capnp_rig.loadtest.cli.report import report
from capnp_rig.loadtest.report import write
from capnp_rig.loadtest.report.chart_images import ExtraMissing

_RUN = Fake(seconds=30, calls=200, noise=0.003, is_open_loop=False)


def _folder(parent: Path, name: str, fake: Fake) -> str:
    return str(write_run_folder(parent / name, make_run(fake)))


def _invoke(command: click.Command, *arguments: str) -> tuple[Result, object]:
    """Run a command as `rigcli` does; return the result and its exit status or exception."""
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    return result, result.exception or result.return_value


def test_a_report_is_written_for_each_folder(tmp_path: Path) -> None:
    folders = [_folder(tmp_path, name, Fake(seconds=2, calls=20)) for name in ("a", "b")]
    result, _ = _invoke(report, *folders)
    assert result.output == "".join(f"{folder}/report.html\n" for folder in folders)
    assert all((Path(folder) / "report.html").is_file() for folder in folders)


@pytest.fixture
def plain_vega(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "vega_script", lambda: "VEGA")


@pytest.mark.usefixtures("plain_vega")
def test_without_folders_the_page_shows_the_newest_results(tmp_path: Path) -> None:
    write_figures(tmp_path / "a", "bench-server", server_figures())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{", encoding="utf-8")
    result, _ = _invoke(report, "--results", str(tmp_path))
    assert result.stdout == f"{tmp_path}/index.html\n"
    assert result.stderr.startswith(f"warning: {damaged} is skipped: {damaged}/run.json is damaged")
    assert len(result.stderr.splitlines()) == 1
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<h3>Server CPU per call, wire and pycapnp</h3>" in page


@pytest.mark.usefixtures("plain_vega")
def test_a_page_of_named_folders(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "a", Fake(seconds=2, calls=20))
    _folder(tmp_path, "b", Fake(seconds=2, calls=20))
    file = tmp_path / "new" / "page.html"
    result, _ = _invoke(report, "--page", str(file), folder)
    assert result.output == f"{file}\n"
    text = file.read_text(encoding="utf-8")
    assert 'href="../a/run.json"' in text
    assert "../b/run.json" not in text
    # Only what was asked for.
    assert not (Path(folder) / "report.html").exists()


@pytest.mark.usefixtures("plain_vega")
def test_page_and_figures_may_be_asked_for_together(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs the extra report")
    write_figures(tmp_path / "a", "bench-server", server_figures())
    figures, page = tmp_path / "figures", tmp_path / "page.html"
    result, _ = _invoke(report, "--results", str(tmp_path), "--figures", str(figures))
    assert result.output == f"{figures}/figures.md\n"
    assert not (tmp_path / "index.html").exists()
    options = ("--figures", str(figures), "--page", str(page))
    result, _ = _invoke(report, "--results", str(tmp_path), *options)
    assert result.output == f"{page}\n{figures}/figures.md\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--results", "{}/none"),
            "{}/none is no folder: run loadtest bench first, or name results",
        ),
        (("--results", "{}"), "{} has no result: run loadtest bench first"),
        (("--page", "{}/page.html", "{}"), "{} is no result: it has no run.json"),
    ],
)
def test_a_page_of_nothing_is_a_mistake(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    _, error = _invoke(report, *(option.format(tmp_path) for option in options))
    assert isinstance(error, click.UsageError)
    assert error.format_message() == message.format(tmp_path)


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise ExtraMissing("vl-convert is missing: install capnp-rig[report]")

    monkeypatch.setattr(write, "vega_script", missing)
    write_figures(tmp_path / "a", "demo", [])
    _, error = _invoke(report, "--results", str(tmp_path))
    assert isinstance(error, click.ClickException)
    assert error.exit_code == 1
    assert error.format_message() == "vl-convert is missing: install capnp-rig[report]"


def test_a_comparison_in_words(tmp_path: Path) -> None:
    old = _folder(tmp_path, "old", _RUN)
    new = _folder(tmp_path, "new", replace(_RUN, seed=2, slowness=1.2))
    result, status = _invoke(compare_results, "--metric", "calls/s", old, new)
    lines = result.stdout.splitlines()
    assert status == 3
    assert lines[0].strip() == (
        "Candidate against baseline, by second: above 1 the candidate is better, "
        "within ±5 % it is the same"
    )
    (row,) = (line for line in lines if "│ calls/s" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:2] == ["calls/s", "calls/s"]
    assert float(cells[4]) == pytest.approx(1 / 1.2, abs=0.02)
    assert cells[7:] == ["30", "slower", ""]
    assert "The candidate is slower." in lines
    assert lines[-1].startswith("One run each: an interval covers what happened within these two")
    assert result.stderr == ""
    assert _invoke(compare_results, "--metric", "calls/s", old, old)[1] == 0


def test_the_margin_is_an_option(tmp_path: Path) -> None:
    old = _folder(tmp_path, "old", _RUN)
    result, status = _invoke(compare_results, "--margin", "0.01 %", "--metric", "p50", old, old)
    assert status == 4
    assert "within ±0.01 % it is the same" in result.stdout
    assert "Whether the candidate is faster or slower cannot be told." in result.stdout
    found = json.loads(_invoke(compare_results, "--margin", "3%", "--json", old, old)[0].stdout)
    assert found["margin"] == 0.03
    codes = [code["code"] for code in found["rows"][0]["reason_codes"]]
    assert codes in ([], ["wider-than-margin", "more-needed"])


@pytest.mark.parametrize("text", ["", "3", "0%", "-1%", "100%", "nan%", "3%%", "1e-1%", "0.03"])
def test_a_bad_margin_is_a_mistake(tmp_path: Path, text: str) -> None:
    old = _folder(tmp_path, "old", Fake(seconds=2, calls=20))
    _, error = _invoke(compare_results, "--margin", text, old, old)
    assert isinstance(error, click.UsageError)
    assert error.message == (f"bad margin {text!r}: expected over 0 % and under 100 %, such as 3%")


def test_why_nothing_was_judged_goes_to_stderr(tmp_path: Path) -> None:
    old = _folder(tmp_path, "old", _RUN)
    new = _folder(tmp_path, "new", replace(_RUN, failures=(("\x1b[31mgone", 2),)))
    result, status = _invoke(compare_results, "--metric", "calls/s", old, new)
    assert status == 5
    assert result.stderr == "void: the candidate is void: 4 calls failed\n"
    assert "not judged: see below" in result.stdout
    assert "Nothing could be judged: every row is void." in result.stdout
    result, status = _invoke(compare_results, "--force", "--metric", "calls/s", old, new)
    assert status == 0
    assert result.stderr == "ignored: the candidate is void: 4 calls failed\n"


def test_a_comparison_as_json(tmp_path: Path) -> None:
    old = _folder(tmp_path, "old", _RUN)
    result, status = _invoke(compare_results, "--json", "--metric", "calls/s", old, old)
    found = json.loads(result.stdout)
    assert (status, found["verdict"], found["exit_status"]) == (0, "same", 0)


def test_text_from_a_file_steers_no_terminal(tmp_path: Path) -> None:
    written = make_run(_RUN)
    reasons = {"reasons": ["\x1b[31m[red]bad[/nothing]"], "reason_codes": None}
    written.document["summary"] |= {"verdict": "void", **reasons}
    folder = str(write_run_folder(tmp_path, written))
    result, _ = _invoke(compare_results, "--metric", "calls/s", folder, folder)
    assert "\x1b" not in result.output
    assert "void: the baseline is void: ?[31m[red]bad[/nothing]\n" in result.stderr


@pytest.mark.parametrize("command", [report, compare_results])
def test_mistakes_are_one_line(tmp_path: Path, command: click.Command) -> None:
    good = _folder(tmp_path, "good", Fake(seconds=2, calls=20))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for folder, kind, text in (
        ("missing", click.UsageError, "no result"),
        ("empty", click.UsageError, "is no result: it has no run.json"),
        ("damaged", click.ClickException, "run.json is damaged: "),
    ):
        _, error = _invoke(command, good, str(tmp_path / folder))
        assert isinstance(error, kind)
        assert text in error.format_message()
        assert error.exit_code == (2 if kind is click.UsageError else 1)


def test_what_cannot_be_compared_is_a_mistake(tmp_path: Path) -> None:
    good = _folder(tmp_path, "good", Fake(seconds=2, calls=20))
    _, error = _invoke(compare_results, "--metric", "p98", good, good)
    assert isinstance(error, click.UsageError)
    assert error.format_message().startswith("no metric 'p98': there is calls/s, ")


def test_a_text_to_fill_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    folder = write_figures(tmp_path / "a", "bench-server", server_figures())
    text = tmp_path / "text.md"
    text.write_bytes(b"\xff<!-- report: verdict -->\n<!-- end of report -->")
    _, error = _invoke(report, "--fill", str(text), str(folder))
    assert isinstance(error, click.ClickException)
    assert error.message == f"{text} is not UTF-8"


def test_results_are_listed_and_compared_by_name(tmp_path: Path) -> None:
    for name, fake in (("old", _RUN), ("new", replace(_RUN, seed=2, slowness=1.2))):
        written = make_run(fake)
        written.document["name"] = name
        written.document["started"] = f"2026-11-2{1 + (name == 'new')}T12:00:00+00:00"
        write_run_folder(tmp_path / f"20261121T12000{len(name)}Z-{name}", written)
    (tmp_path / "20261121T120009Z-cut").mkdir()
    where = ("--results", str(tmp_path))
    result, status = _invoke(list_command, *where, "--json")
    assert status is None
    listed = json.loads(result.stdout)
    assert [entry["name"] for entry in listed] == ["", "old", "new"]
    assert "old" in _invoke(list_command, *where)[0].stdout
    metric = ("--metric", "calls/s", *where)
    for words in (("old", "new"), ("@previous", "@last"), ("old", "@last")):
        assert _invoke(compare_results, *metric, *words)[1] == 3
    assert _invoke(compare_results, *metric, "new", "old")[1] == 0
    result, _ = _invoke(report, *where, "old", "@last")
    folders = [entry["folder"] for entry in listed[1:]]
    assert result.output == "".join(f"{folder}/report.html\n" for folder in folders)
    _, error = _invoke(compare_results, "old", "newer", *where)
    assert isinstance(error, click.UsageError)
    assert "no result 'newer'" in error.format_message()
