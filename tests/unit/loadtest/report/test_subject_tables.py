from sample_results import pair_figures, peer_samples

from capnp_rig.loadtest.bench.peers_figures import figures
from capnp_rig.loadtest.report.document import Paragraph, Table
from capnp_rig.loadtest.report.subject_tables import peer_parts, server_parts

IN_MEMORY_NS = {"call: ours": 5000.0, "call: Rust": 5500.0, "Finish: ours": 700.0}


def shown(table: Table) -> list[list[str]]:
    return [list(table.headings), *([cell.text for cell in row.cells] for row in table.rows)]


def test_layouts_are_rows_and_what_is_measured_of_them_columns() -> None:
    found = figures(peer_samples(6, {"Rust": 1.2}), [IN_MEMORY_NS] * 6)
    memory, server, generator = (part for part in peer_parts(found) if isinstance(part, Table))
    assert shown(memory) == [
        ["what", "ours", "Rust"],
        ["call, µs", "5 (5 to 5)", "5.5 (5.5 to 5.5)"],
        ["call, in times of ours", "-", "1.1 (1.1 to 1.1)"],
        ["Finish, µs", "0.7 (0.7 to 0.7)", "-"],
    ]
    headings, first, second, *_ = shown(server)
    assert headings == [
        *("layout, load", "wire, µs", "pycapnp, µs", "canned answers, µs"),
        *("CPU per call in times of canned answers", "wire over pycapnp"),
        "CPU per call in times of the best layout",
    ]
    assert [each.partition(" (")[0] for each in first] == [
        *("ours, 64 x 1", "10", "30", "8", "1.25", "3", "1"),
    ]
    assert [each.partition(" (")[0] for each in second] == [
        *("Rust, 64 x 1", "12", "36", "9.6", "1.25", "3", "1.2"),
    ]
    assert [row[0] for row in shown(generator)[1:]] == ["ours, 1 x 64", "Rust, 1 x 64"]


def test_few_rounds_are_marked_and_told() -> None:
    *_, notes = peer_parts(figures(peer_samples(2, {}), []))
    assert isinstance(notes, Paragraph)
    assert notes.text == "Void figures, 4: under 6 pairs"


def test_servers_are_rows_and_ratios_stand_below() -> None:
    values, ratios, _ = server_parts(pair_figures("go", "rust", "8 x 16"))
    assert isinstance(values, Table)
    assert isinstance(ratios, Table)
    assert values.caption == "Each server, 8 x 16; medians of the rounds"
    assert [row[:2] for row in shown(values)] == [
        ["server", "calls/s"],
        ["go", "100,000 (98,000 to 102,000)"],
        ["rust", "50,000 (49,000 to 51,000)"],
    ]
    assert [row.cells[0].text for row in ratios.rows] == [
        *("Calls/s, 8 x 16: go over rust", "Server CPU per call, 8 x 16: go over rust"),
    ]
