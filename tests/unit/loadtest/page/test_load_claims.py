from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import (
    FOUND,
    pair_figures,
    server_figures,
    write_figures,
    write_search,
    write_sweep,
)
from sample_runs import Fake, make_run, write_run_folder

from capnp_rig.loadtest.report.load_claims import (
    load_claim,
    load_text,
    pair_claims,
    search_claim,
    sweep_claim,
    void_flags,
)
from capnp_rig.loadtest.report.sources import Source, read_sources
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import reasons_of_text


def _source(folder: Path) -> Source:
    found = read_sources([folder])
    assert not found.skipped
    return found.sources[0]


def test_a_pair_of_servers_in_a_sentence(tmp_path: Path) -> None:
    source = _source(write_figures(tmp_path, "bench-server", server_figures()))
    first, second = pair_claims(source)
    assert first.text == (
        "64 connections with 1 call in flight each: wire makes 2 times the calls of pycapnp "
        "(100,000 calls/s against 50,000 calls/s); pycapnp takes 2.2 times the server CPU per call "
        "of wire (20 µs against 9 µs)."
    )
    assert first.detail == (
        "calls/s: 2 (1.94 to 2.06), A/A floor 1 %, 12 rounds; "
        "server CPU per call: 2.2 (2.13 to 2.27), A/A floor 1 %, 12 rounds"
    )
    assert second.text.startswith("8 connections with 16 calls in flight each: ")


@pytest.mark.parametrize(
    ("verdict", "reason", "value", "said"),
    [
        ("slower", "", 0.5, "pycapnp makes 2 times the calls of wire"),
        ("same", "", 1.0, "calls/s of wire and pycapnp are the same"),
        ("inconclusive", "", 1.0, "calls/s of wire and pycapnp cannot be told apart"),
        # Of so wide a floor everything would be the same.
        ("same", "noisy", 1.0, "calls/s of wire and pycapnp cannot be told apart"),
        ("faster", "a lower bound: busy", 3.0, "wire makes at least 3 times the calls of pycapnp"),
    ],
)
def test_a_pair_by_its_verdict(
    tmp_path: Path, verdict: str, reason: str, value: float, said: str
) -> None:
    figures = [
        replace(
            one,
            verdict=Verdict(verdict),
            reasons=reasons_of_text(reason),
            value=value,
            labels={**one.labels, "floor": 1.0 if reason == "noisy" else one.labels["floor"]},
        )
        if one.name == "64 x 1: wire over pycapnp, calls/s"
        else one
        for one in pair_figures("wire", "pycapnp", "64 x 1")
    ]
    (claim,) = pair_claims(_source(write_figures(tmp_path, "bench-server", figures)))
    assert said in claim.text


def test_void_pairs_say_why(tmp_path: Path) -> None:
    figures = [
        replace(one, verdict=Verdict.VOID, reasons=reasons_of_text("under 6 pairs"))
        if " over " in one.name
        else one
        for one in pair_figures("wire", "pycapnp", "64 x 1")
    ]
    (claim,) = pair_claims(_source(write_figures(tmp_path, "bench-server", figures)))
    assert claim.void == "under 6 pairs"
    assert "no verdict on calls/s" in claim.text


@pytest.mark.parametrize(
    ("load", "noun", "said"),
    [
        ("64 x 1", "connections", "64 connections with 1 call in flight each"),
        ("16 x 4", "users", "16 users with 4 calls in flight each"),
        ("many", "users", "many"),
    ],
)
def test_loads_in_words(load: str, noun: str, said: str) -> None:
    assert load_text(load, noun) == said


def test_the_answer_of_a_search(tmp_path: Path) -> None:
    source = _source(write_search(tmp_path))
    claim = search_claim(source)
    assert claim.text == (
        "The objective p99<2ms and errors<0.1% holds up to 30,000 calls/s (5 of 5 verifications "
        "kept it); it fails at 40,000 calls/s, where the limit was the server."
    )
    assert claim.detail == "11 probes, 16 connections x 1 in flight, 32 B texts"


def test_a_search_without_an_answer(tmp_path: Path) -> None:
    source = _source(write_search(tmp_path))
    found = {**FOUND, "rate_hz": None, "failing_hz": None}
    claim = search_claim(replace(source, document={**source.document, "found": found}))
    assert claim.text == (
        "No rate was verified to keep the objective p99<2ms and errors<0.1%; "
        "that is the highest rate that was allowed."
    )


def test_a_load_run_and_its_reasons(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=3, calls=50, failures=(("gone", 2),)))
    source = _source(write_run_folder(tmp_path, written))
    assert source.load is not None
    claim = load_claim(source, source.load.summary())
    assert claim.text.startswith("At 100 calls/s, due on a schedule, half of the response times")
    assert claim.void.startswith("4 calls failed; ")
    assert claim.detail == "300 calls, 4 failed, 64 connections x 1 in flight, 32 B texts"


def test_a_closed_loop_says_that_callers_wait(tmp_path: Path) -> None:
    written = make_run(Fake(seconds=12, calls=900, is_open_loop=False))
    written.document["kind"] = "locust"
    source = _source(write_run_folder(tmp_path, written))
    assert source.load is not None
    claim = load_claim(source, source.load.summary())
    assert claim.text.startswith("Locust: at 1,")
    assert "as many as callers that wait make" in claim.text
    assert claim.void == ""


def test_void_figures_are_counted_by_reason(tmp_path: Path) -> None:
    reasons = ["late"] * 3 + ["few"] * 2 + ["a", "b", ""]
    figures = [
        Figure(
            "x", 1.0, "µs", "round trip", 1, verdict=Verdict.VOID, reasons=reasons_of_text(reason)
        )
        for reason in reasons
    ]
    figures.append(Figure("y", 1.0, "µs", "round trip", 1))
    source = _source(write_figures(tmp_path, "demo", figures))
    assert void_flags([source]) == [
        "demo: 8 of 9 figures are void: late (3); few (2); a (1); and 2 more reasons"
    ]


def test_a_sweep_says_how_high_the_rate_goes(tmp_path: Path) -> None:
    claim = sweep_claim(_source(write_sweep(tmp_path)))
    assert claim.text == (
        "With callers that wait, the rate goes up to 8,000 calls/s, with 16 calls in flight; "
        "8 come within 5 % of it, and beyond that calls only wait longer."
    )
    assert claim.detail == "6 rounds, 4 connections, 32 B texts"


def test_a_sweep_of_failures_says_nothing(tmp_path: Path) -> None:
    claim = sweep_claim(_source(write_sweep(tmp_path, failures={"gone": 1})))
    assert claim.void == "all of it is void"
