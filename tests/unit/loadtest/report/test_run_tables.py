import pytest

from capnp_rig.loadtest.report.document import Notes, Paragraph, Tone
from capnp_rig.loadtest.report.run_tables import (
    answer_notes,
    beside_verdict,
    check_notes,
    times_table,
)
from capnp_rig.loadtest.results.times_table import times_rows
from capnp_rig.loadtest.stats.failures import FailedCall
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.rate_search import Answer, Limit
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import checked
from capnp_rig.loadtest.stats.slo import parse_slo
from capnp_rig.loadtest.stats.tally import Times, Window


def test_a_label_has_its_times_in_us() -> None:
    times = Times(service=Histogram.of([400, 12_340, 5_678_000]))
    table = times_table(times_rows(Window({"read": times}), 2.0))
    (row,) = ([cell.text for cell in row.cells] for row in table.rows)
    assert dict(zip(table.headings, row, strict=True)) == {
        "label": "read",
        "clock": "service",
        "count": "3",
        "per s": "2",
        "mean": "1,897",
        "p50": "12.35",
        **dict.fromkeys(("p90", "p99", "p99.9", "p99.99", "max"), "5,678"),
    }


def test_a_percentile_with_few_calls_beyond_it_is_grey() -> None:
    times = Times(service=Histogram.of([10_000] * 500 + [20_000] * 500))
    (row,) = times_table(times_rows(Window({"read": times}), 1.0)).rows
    tones = [cell.tone for cell in row.cells[5:10]]
    assert tones == [Tone.PLAIN, Tone.PLAIN, Tone.QUIET, Tone.QUIET, Tone.QUIET]


def test_what_nobody_compared_and_the_first_failed_calls_are_told() -> None:
    wrong = FailedCall("WrongReply: w", "WrongReply: w", True, "a", "b", "c")
    failed = FailedCall("RemoteError: no", "RemoteError: no [id 7]", came="no [id 7]")
    plain = FailedCall("Disconnected: gone", "Disconnected: gone")
    document = {
        "checked": checked([Reason(ReasonCode.CHECK_ID)]),
        "failed_calls": [each.to_json() for each in [wrong] * 5 + [failed, failed, plain]],
    }
    assert list(check_notes(document)) == [
        Paragraph("Content not checked: --check id."),
        *[Notes("WrongReply: w", ["request: a", "expected: b", "came: c"])] * 3,
        Notes("RemoteError: no [id 7]", ["came: no [id 7]"]),
    ]
    # A result of earlier.
    assert list(check_notes({})) == []
    assert beside_verdict("valid", ()) == "valid"
    assert beside_verdict("void", [Reason(ReasonCode.CHECK_ID)]) == (
        "void; content not checked: --check id"
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer(20_000, None, Limit.SEARCH, 5),
            [
                "p99<1ms holds up to 20,000 calls/s (5 of 5 verifications).",
                "No rate failed up to the highest allowed: --to.",
            ],
        ),
        (
            Answer(None, None, Limit.UNKNOWN, 0),
            ["No rate was verified to keep p99<1ms.", "No rate had failed yet."],
        ),
        (
            Answer(None, 100, Limit.SERVER, 0),
            [
                "No rate was verified to keep p99<1ms.",
                "It fails at 100 calls/s; the limit was the server.",
            ],
        ),
    ],
)
def test_a_search_says_who_was_the_limit(answer: Answer, words: list[str]) -> None:
    assert [each.text for each in answer_notes(parse_slo("p99<1ms"), answer)] == words
