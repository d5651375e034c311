import copy
import json
import math
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from references import KINDS, REFERENCES, each_reference
from sample_results import pair_figures, peer_samples, write_figures
from sample_runs import LABEL, Fake, Written, make_run, over_two_servers, write_run_folder

from capnp_rig.loadtest.bench.peers_figures import figures as peer_figures
from capnp_rig.loadtest.report.document import Table
from capnp_rig.loadtest.report.result_page import result_document
from capnp_rig.loadtest.report.sources import source_of
from capnp_rig.loadtest.report.web import render
from capnp_rig.loadtest.report.write import write_report
from capnp_rig.loadtest.results import ResultError, read_run
from capnp_rig.loadtest.results.load_samples import read_figures, read_result

_VOID_TAGS = {"meta", "br", "hr", "img", "link", "input"}
_EVIL = "<script>alert('x')</script>\"&"


class _Page(HTMLParser):
    """Reads a page: its tables by their first headings, its text, and what is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.problems: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.classes: list[list[str]] = []
        self.text = ""
        self.verdict = ""
        self._in_verdict = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID_TAGS:
            self.open.append(tag)
        plain = dict(attrs)
        self.links += [
            str(plain[name]) for name in ("href", "src", "srcset", "data") if name in plain
        ]
        self.problems += [f"{name} is a script" for name in plain if name.startswith("on")]
        if tag == "table":
            self.tables.append([])
            self.classes.append([])
        if tag == "tr":
            self.tables[-1].append([])
            self.classes[-1].append(plain.get("class") or "")
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if plain.get("id") == "verdict":
            self._in_verdict = True

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes what is not open")
        if tag == "section":
            self._in_verdict = False

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"script", "style"}:
            return
        self.text += data
        if self._in_verdict:
            self.verdict += data + "\n"
        # A heading holds a button.
        if {"td", "th"} & {*self.open}:
            self.tables[-1][-1][-1] += data

    def table(self, *headings: str) -> list[list[str]]:
        """Return the rows of the first table that begins with these headings."""
        found = next(one for one in self.tables if one[0][: len(headings)] == [*headings])
        return found[1:]

    def headings(self, *first: str) -> list[str]:
        return next(one[0] for one in self.tables if one[0][: len(first)] == [*first])

    def row(self, *first: str, table: tuple[str, ...]) -> list[str]:
        return next(row for row in self.table(*table) if row[: len(first)] == [*first])


def _text(folder: Path) -> str:
    return render(result_document(source_of(folder, read_result(folder))), pictures={})


def _page(folder: Path) -> _Page:
    page = _Page(_text(folder))
    assert page.problems == []
    assert page.open == []
    return page


def _run(tmp_path: Path, fake: Fake | None = None) -> tuple[_Page, Written]:
    written = make_run(fake or Fake(seconds=4, calls=800, failures=((_EVIL, 3),)))
    return _page(write_run_folder(tmp_path, written)), written


def _us(text: str) -> float:
    return float(text.replace(",", ""))


def _is_percentile(text: str, times_ns: list[int], percent: float) -> bool:
    """Tell whether a text is the percentile of raw times, at most 0.8 % too high, rounded."""
    exact_us = sorted(times_ns)[max(1, math.ceil(percent / 100 * len(times_ns))) - 1] / 1000
    # A number has four digits.
    rounded = max(0.00051 * exact_us, 0.00051)
    return exact_us - rounded <= _us(text) <= exact_us * (1 + 1 / 128) + rounded


def test_every_percentile_is_that_of_the_raw_times(tmp_path: Path) -> None:
    page, written = _run(tmp_path)
    for clock in ("response", "service", "lateness"):
        times = written.raw[clock]
        row = page.row(LABEL, clock, table=("label", "clock"))
        assert row[2:4] == [f"{len(times):,}", f"{len(times) / 4:,.0f}"]
        assert _us(row[4]) == pytest.approx(sum(times) / len(times) / 1000, abs=0.51)
        for text, percent in zip(row[5:10], (50, 90, 99, 99.9, 99.99), strict=True):
            assert _is_percentile(text, times, percent)
        assert _us(row[10]) == pytest.approx(max(times) / 1000, abs=0.51)


def test_every_figure_is_rebuilt_from_the_samples(tmp_path: Path) -> None:
    page, written = _run(tmp_path)
    headings = ("figure", "value", "unit", "95 % interval", "n", "verdict", "reason")
    rows = {row[0]: row for row in page.table(*headings)}
    assert [*rows] == [figure["name"] for figure in written.document["figures"]]
    calls = len(written.raw["response"])
    assert _us(rows["answered calls, open loop"][1]) == pytest.approx(calls / 4, abs=0.5)
    assert rows["failures"][1:3] == ["6", "calls"]
    cpu_us = written.document["observed"][0]["server_cpu_s"] * 1e6 / calls
    assert _us(rows["server CPU per call"][1]) == pytest.approx(cpu_us, abs=0.05)
    for clock in ("response", "service", "lateness"):
        for percent in (50, 90, 99, 99.9):
            what = clock if clock == "lateness" else f"{clock} time"
            row = rows[f"{what} p{percent:g}"]
            assert _is_percentile(row[1], written.raw[clock], percent)
            # Four seconds have none.
            assert row[3] == ""


@pytest.mark.parametrize("fake", [Fake(calls=60), Fake(seconds=2, calls=60, repeats=6)])
def test_intervals_hold_their_figures(tmp_path: Path, fake: Fake) -> None:
    page, _ = _run(tmp_path, fake)
    rows = page.table("figure", "value", "unit", "95 % interval", "n", "verdict", "reason")
    held = [row[0] for row in rows if row[3]]
    assert {"response time p50", "service time p90", "server CPU per call"} < {*held}
    for row in rows:
        if row[3]:
            low, high = (_us(text) for text in row[3].split(" to "))
            assert low <= _us(row[1]) <= high


def test_the_spread_over_repeats_is_shown(tmp_path: Path) -> None:
    page, _ = _run(tmp_path, Fake(seconds=2, calls=60, repeats=3))
    rows = page.table("figure", "95 % interval", "lowest repeat", "median", "highest")
    (row,) = (row for row in rows if row[0] == "service.p50")
    assert row[1] == "-"
    low, middle, high = map(_us, row[2:])
    assert low <= middle <= high
    assert "no interval: 3 repeats, it takes 6" in page.text


def test_the_figures_need_nothing_but_the_samples(tmp_path: Path) -> None:
    whole, written = _run(tmp_path / "whole")
    del written.document["summary"]
    written.document["figures"] = []
    bare = _page(write_run_folder(tmp_path / "bare", written))
    for headings in (("figure",), ("label", "clock"), ("kind",), ("second", "answered")):
        assert bare.table(*headings) == whole.table(*headings)
    assert bare.verdict == whole.verdict


def test_every_second_is_that_of_its_samples(tmp_path: Path) -> None:
    page, written = _run(tmp_path)
    rows = page.table("second", "answered")
    assert [row[0] for row in rows] == ["warm-up", "0", "1", "2", "3"]
    assert [row[1] for row in rows] == ["10", *["1,600"] * 4]
    assert [row[2] for row in rows] == ["-", *["1,600"] * 4]
    assert [row[3] for row in rows] == ["0", "6", "0", "0", "0"]
    # Each process's times come second by second.
    half = len(written.raw["response"]) // 2
    for second in range(4):
        times = [
            one
            for process in (0, half)
            for one in written.raw["response"][
                process + 800 * second : process + 800 * (second + 1)
            ]
        ]
        for text, percent in zip(rows[second + 1][4:7], (50, 99, 99.9), strict=True):
            assert _is_percentile(text, times, percent)


def test_use_of_cpu_and_memory_is_that_of_the_samples(tmp_path: Path) -> None:
    page, _ = _run(tmp_path, Fake(seconds=4, calls=50, noise=0.0))
    rows = page.table("role", "process")
    assert rows == [
        ["server", "worker 0", "11", "1.75", "0.5", "50", "50"],
        ["server", "supervisor", "10", "0", "0", "20", "20"],
        ["generator", "engine 0", "12", "1.4", "0.4", "30", "30"],
    ]
    rows = page.table("second", "server worker 0 (11), cores")
    assert rows[0] == ["0", "0.5", "50", "0", "20", "0.4", "30", "1"]
    assert len(rows) == 4


def test_failures_connections_and_generators_are_listed(tmp_path: Path) -> None:
    page, _ = _run(tmp_path)
    assert page.table("kind", "calls") == [[_EVIL, "6"]]
    row = page.row("connections", "connect", table=("label", "clock"))
    assert (row[2], row[-1]) == ("2", "200")
    assert page.table("repeat", "process") == [
        ["0", "0", "3,200", "3,200", "0", "0", "1", "came"],
        ["0", "1", "3,200", "3,200", "0", "0", "1", "came"],
    ]


def test_each_of_several_endpoints_has_its_figures(tmp_path: Path) -> None:
    fake = Fake(seconds=6, calls=800, failures=((_EVIL, 3),))
    written = over_two_servers(make_run(fake), lost=(1.5, 4.25))
    page = _page(write_run_folder(tmp_path, written))
    assert page.headings("endpoint", "calls")[2:] == [
        *("calls/s", "failed", "connections", "ended", "CPU µs per call")
    ]
    # 2 s of CPU time for 9,600 calls; that of the other is not known.
    assert page.table("endpoint", "calls") == [
        ["127.0.0.1:1", "9,600", "1,600", "6", "2", "0", "208.3"],
        ["<b>:2", "6,400", "1,067", "6", "0", "2", "-"],
    ]
    times = page.table("endpoint", "p50")
    assert [row[0] for row in times] == ["127.0.0.1:1", "<b>:2"]
    assert _is_percentile(times[0][1], written.raw["response"], 50)
    assert page.table("kind", "calls") == [[_EVIL, "6", "6", "6"]]
    assert "<b>:2: from second 1.5 to second 4.2" in page.text
    assert "Server CPU per call is left out where it is not known" in page.text


def test_a_run_says_what_it_was(tmp_path: Path) -> None:
    page, _ = _run(tmp_path)
    assert """loadtest run 127.0.0.1:1 --text '<b>&'"'"'"'""" in page.text
    assert page.row("workload.text", table=("name", "value"))[1] == "<script>alert(1)</script>"
    assert "Some CPU" in page.text
    assert page.verdict.startswith("Verdict\nfailed (open loop")
    assert "6 calls failed" in page.verdict
    assert "does not agree" not in page.text


def test_what_kept_the_processes_from_a_cpu_is_listed(tmp_path: Path) -> None:
    page, _ = _run(tmp_path)
    waits = page.row("server", table=("role", "process", "pid", "busy %"))
    assert waits[:5] == ["server", "worker 0", "7", "50", "0.1"]
    assert page.row("loop", table=("process", "pid", "cores")) == ["loop", "99", "0.9"]


def test_void_rows_are_grey_and_what_failed_is_red(tmp_path: Path) -> None:
    page, _ = _run(tmp_path)
    at = next(at for at, found in enumerate(page.tables) if found[0][0] == "figure")
    looks = dict(zip((row[0] for row in page.tables[at]), page.classes[at], strict=True))
    assert (looks["failures"], looks["response time p50"]) == ("bad", "")
    assert {name for name, look in looks.items() if look == "void"} == {
        row[0] for row in page.tables[at] if row[5] == "void"
    }


def test_a_closed_loop_has_service_times_only(tmp_path: Path) -> None:
    page, _ = _run(tmp_path, Fake(seconds=3, calls=50, is_open_loop=False))
    assert {row[1] for row in page.table("label", "clock")} == {"service", "connect"}
    assert "closed loop: users wait for replies" in page.verdict
    assert page.headings("second", "answered")[4:] == [
        "service p50",
        "service p99",
        "service p99.9",
    ]


def test_what_the_document_says_otherwise_is_named(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=50))
    document = copy.deepcopy(written.document)
    document["summary"]["calls"] = 301
    document["summary"]["service_us"]["p99"] *= 1.01
    document["summary"]["errors_by_kind"] = {}
    document["figures"][0]["value"] = 7.0
    page = _page(write_run_folder(tmp_path, Written(document, written.samples, {})))
    assert "run.json does not agree with the samples" in page.verdict
    said = [line for line in page.verdict.splitlines() if "run.json says" in line]
    assert said[0] == "calls: run.json says 301, the samples 300"
    assert said[1].startswith("service_us.p99: run.json says ")
    assert said[2] == "answered calls, open loop, value: run.json says 7.0, the samples 100.0"
    assert len(said) == 3
    # The page has what the samples say.
    assert page.row(LABEL, "service", table=("label", "clock"))[2] == "300"
    assert page.row("answered calls, open loop", table=("figure",))[1] == "100"


def test_lost_samples_show(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=50))
    lost = [one for one in written.samples if one.get("second") != 1]
    page = _page(write_run_folder(tmp_path, Written(written.document, lost, {})))
    assert "calls: run.json says 300, the samples 200" in page.verdict
    assert [row[1] for row in page.table("second", "answered")] == ["10", "100", "0", "100"]


def test_under_locust_the_reasons_are_its_own(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=50))
    document = written.document | {"kind": "locust", "violations": ["p99>1us: 900 µs"]}
    document["summary"] = document["summary"] | {
        "verdict": "void",
        "reasons": ["1 worker is missing"],
        "reason_codes": None,
    }
    page = _page(write_run_folder(tmp_path, Written(document, written.samples, {})))
    assert "1 worker is missing" in page.verdict
    assert "failed: p99>1us" in page.verdict
    assert "does not agree" not in page.verdict


@pytest.mark.parametrize(("kind", "is_folded"), [("locust", True), ("run", False)])
def test_the_many_options_of_locust_are_folded(tmp_path: Path, kind: str, is_folded: bool) -> None:
    written = make_run(Fake(seconds=3, calls=50))
    document = written.document | {"kind": kind}
    folder = write_run_folder(tmp_path, Written(document, written.samples, {}))
    parts = result_document(source_of(folder, read_result(folder))).parts
    tables = {part.key: part for part in parts if isinstance(part, Table)}
    assert tables["config-table"].folded is is_folded
    assert not tables["environment-table"].folded


def test_repeats_have_their_own_sections(tmp_path: Path) -> None:
    page, _ = _run(tmp_path, Fake(seconds=3, calls=50, repeats=2))
    assert "Every second of repeat 0" in page.text
    assert "Every second of repeat 1" in page.text
    assert [row[:2] for row in page.table("repeat", "process")] == [
        ["0", "0"],
        ["0", "1"],
        ["1", "0"],
        ["1", "1"],
    ]


def _evil(plain: Any) -> Any:
    """Return plain values with markup in every text."""
    if isinstance(plain, dict):
        return {
            name if name in {"machine", "packages"} else name + _EVIL: _evil(value)
            for name, value in plain.items()
        }
    return plain + _EVIL if isinstance(plain, str) else plain


def test_nothing_that_was_read_becomes_markup(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=50, failures=((_EVIL, 1),)))
    document = written.document
    document["config"], document["environment"] = (
        _evil(document["config"]),
        {
            **_evil(document["environment"]),
            "command": [_EVIL],
        },
    )
    document["started"] = _EVIL
    document["summary"] |= {"verdict": "void", "reasons": [_EVIL], "reason_codes": None}
    for figure in document["figures"]:
        figure |= {"verdict": "void", "reason": _EVIL, "reason_codes": None}
    samples = json.loads(json.dumps(written.samples).replace(LABEL, LABEL + "<i>"))
    for one in samples:
        if one["sample"] == "usage":
            one["name"] = one["role"] = _EVIL
    folder = write_run_folder(tmp_path / "<b>", Written(document, samples, {}))
    (folder / "<a href='http:x'>").touch()
    page = _page(folder)
    assert not {*page.tags} & {"b", "i", "iframe", "object"}
    # The page's own script, and no icon.
    assert (page.tags.count("script"), page.tags.count("link")) == (1, 1)
    assert _EVIL in page.text


@pytest.mark.parametrize("folder", each_reference())
def test_a_reference_is_shown_with_all_its_figures(folder: Path) -> None:
    page = _page(folder)
    figures = read_figures(read_run(folder))
    rows = page.table("figure", "value")
    assert [row[0] for row in rows] == [figure.name for figure in figures]
    verdict_at = page.headings("figure", "value").index("verdict")
    for row, figure in zip(rows, figures, strict=True):
        if figure.value is None:
            assert row[1] == "-"
        else:
            assert _us(row[1]) == pytest.approx(figure.value, rel=0.001, abs=0.0006)
        assert row[verdict_at] == figure.verdict
    start = "valid" if KINDS[folder] == "run" else f"{len(rows)} figures: "
    assert page.verdict.startswith(f"Verdict\n{start}")


def test_servers_and_layouts_stand_side_by_side(tmp_path: Path) -> None:
    servers = pair_figures("go", "rust", "8 x 16")
    peers = peer_figures(peer_samples(6, {}), [])
    for kind, listed in (("bench-servers", servers), ("bench-peers", peers)):
        folder = write_figures(tmp_path / kind, kind, listed)
        source = source_of(folder, read_result(folder))
        first, second, *_ = result_document(source).sections
        assert (first.key, second.key) == ("side-by-side", "figures")
        tables = [part for part in first.parts if isinstance(part, Table)]
        assert all(len(table.rows) > 1 for table in tables)
        assert len(tables) == 2


def test_a_demo_has_no_samples(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=50))
    (tmp_path / "run.json").write_text(json.dumps(written.document | {"kind": "demo"}))
    assert len(_page(tmp_path).table("figure", "value")) == len(written.document["figures"])


@pytest.mark.parametrize("fake", [Fake(seconds=3, calls=50), Fake(seconds=3, calls=0), None])
def test_a_page_asks_for_nothing_from_anywhere(tmp_path: Path, fake: Fake | None) -> None:
    folder = tmp_path
    if fake is None:
        shutil.copytree(REFERENCES[0], tmp_path, dirs_exist_ok=True)
    else:
        write_run_folder(folder, make_run(fake))
    text = _text(folder)
    page = _Page(text)
    links = [link for link in page.links if not link.startswith("#")]
    files = sorted(each.name for each in folder.iterdir())
    assert links == ["data:,", *(f"./{name}" for name in files)]
    assert not {*page.tags} & {"img", "iframe", "object", "embed", "video"}
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_is_the_same_every_time(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path, make_run(Fake(seconds=3, calls=50)))
    write_report(source_of(folder, read_result(folder)))
    first = (folder / "report.html").read_text(encoding="utf-8")
    write_report(source_of(folder, read_result(folder)))
    assert (folder / "report.html").read_text(encoding="utf-8") == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda document: document.pop("generators"),
            "run.json is damaged: 'generators' is missing",
        ),
        (
            lambda document: document.update(figures=[{}]),
            "run.json is damaged: 'reason' is missing",
        ),
        (lambda document: document.update(version="9.0"), "is not a 'capnp-rig run' of version"),
    ],
)
def test_a_damaged_result_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    written = make_run(Fake(seconds=3, calls=50))
    change(written.document)
    folder = write_run_folder(tmp_path, written)
    with pytest.raises(ResultError, match=message) as raised:
        write_report(source_of(folder, read_result(folder)))
    assert str(folder) in str(raised.value)
    assert not (folder / "report.html").exists()
