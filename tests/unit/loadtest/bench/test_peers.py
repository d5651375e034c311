from dataclasses import replace

from sample_results import peer_samples
from sample_surroundings import CALM, DISTURBED

from capnp_rig.loadtest.bench.peers_figures import WIRE, figures
from capnp_rig.loadtest.stats.figure import Figure

IN_MEMORY_NS = {"call, 16 in a read: ours": 5000.0, "call, 16 in a read: Rust": 5500.0}


def named(listed: list[Figure]) -> dict[str, Figure]:
    """Return figures by name, all of them different."""
    by_name = {figure.name: figure for figure in listed}
    assert len(by_name) == len(listed)
    return by_name


def test_figures_are_those_of_the_rounds() -> None:
    found = named(figures(peer_samples(6, {"Rust": 1.2}), [IN_MEMORY_NS] * 6))
    values = {name: round(figure.value or 0, 6) for name, figure in found.items()}
    assert values["Rust, 8 x 16: wire server CPU per call"] == 12
    assert values["Rust, 8 x 16: canned answers server CPU per call"] == 9.6
    assert values["ours, 64 x 1: wire calls/s"] == 10_000
    assert values["ours, 64 x 1: wire over pycapnp, server CPU per call"] == 3
    assert values["Rust, 64 x 1: wire CPU per call in times of canned answers"] == 1.25
    assert values["Rust, 64 x 1: wire CPU per call in times of the best layout"] == 1.2
    assert values["ours, 64 x 1: wire CPU per call in times of the best layout"] == 1
    assert values["Rust, 1 x 64: loadtest run CPU per call in times of the best layout"] == 1.2
    assert values["Rust, 1 x 64: loadtest run generator CPU per call"] == 6
    assert values["in memory: call, 16 in a read: Rust"] == 5.5
    assert values["in memory: call, 16 in a read: Rust, in times of ours"] == 1.1
    aa = found["ours, 64 x 1: A/A, server CPU per call"]
    assert (aa.verdict, aa.labels["subject"]) == ("floor", WIRE)
    assert not any(figure.is_void for figure in found.values())
    assert all(figure.low is not None for figure in found.values())


def test_a_layout_that_was_disturbed_voids_its_figures_and_what_is_held_against_it() -> None:
    disturbed = [
        replace(each, surroundings=DISTURBED if each.peer == "ours" else CALM)
        for each in peer_samples(6, {"Rust": 1.2})
    ]
    voids = {figure.name for figure in figures(disturbed, []) if figure.is_void}
    assert "ours, 8 x 16: wire server CPU per call" in voids
    assert "Rust, 8 x 16: wire CPU per call in times of the best layout" in voids
    assert "Rust, 8 x 16: wire server CPU per call" not in voids


def test_a_busy_load_makes_the_rate_a_lower_bound_and_leaves_the_cost() -> None:
    busy = [replace(each, cpu_s=0.099) for each in peer_samples(6, {})]
    found = named(figures(busy, []))
    assert found["ours, 8 x 16: wire calls/s"].verdict == "at least"
    assert found["ours, 8 x 16: wire server CPU per call"].verdict == "ok"
