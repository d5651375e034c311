"""What the comparison of stacks says of samples that are made up."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest
from sample_surroundings import CALM, DISTURBED

from capnp_rig.loadtest.bench.stacks_figures import (
    CALLS,
    CLOSED,
    CPU,
    FLOOR_CALLS,
    GENERATOR_BUSY,
    MB,
    OPEN,
    RATIO_CALLS,
    RATIO_CPU,
    SERVER_BUSY,
    StackSample,
    figures,
)
from capnp_rig.loadtest.report.document import Paragraph, Table
from capnp_rig.loadtest.report.stack_tables import stack_parts
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.histogram import Recorder
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of

MS = 1_000_000


def histogram(*times_ns: int) -> dict[str, Any]:
    recorder = Recorder()
    recorder.extend(list(times_ns))
    return recorder.take().to_json()


def sample(stack: str, number: int, calls: int = 10_000, **changes: Any) -> StackSample:
    """Return a round of half a second: 10 µs of CPU a call, times from 1 to 2 ms."""
    times = histogram(*range(MS, 2 * MS, MS // calls)[:calls]) if calls else None
    made = StackSample(
        stack=stack,
        payload_kind="text",
        payload_bytes=32,
        loop=CLOSED,
        round=number,
        order=0,
        again=False,
        connections=16,
        in_flight=1,
        calls=calls,
        seconds=0.5,
        busy=0.5,
        server_cpu_s=calls * 10e-6,
        steal=0.0,
        service=times,
        response=times,
        lateness=histogram(*[0] * calls) if calls else None,
    )
    return replace(made, **changes)


def rounds(stack: str, *calls: int, **changes: Any) -> list[StackSample]:
    return [sample(stack, number, count, **changes) for number, count in enumerate(calls)]


# Eleven rounds that differ a little, in the same way for whoever has them.
STEADY = [10_000 + 20 * (number % 5) for number in range(11)]
FASTER = [2 * calls for calls in STEADY]


def test_a_disturbed_load_has_no_figures() -> None:
    calm, disturbed = (
        find(figures(rounds("json", *STEADY, surroundings=each)), "json", CALLS)
        for each in (CALM, DISTURBED)
    )
    assert (calm.verdict, codes_of(disturbed.reasons)) == ("ok", {ReasonCode.CPU_WAIT})


def find(found: Sequence[Figure], stack: str, figure: str, **labels: Any) -> Figure:
    labels = {"stack": stack, "figure": figure, **labels}
    (one,) = [
        figure
        for figure in found
        if all(figure.labels.get(name) == value for name, value in labels.items())
    ]
    return one


def both(rival: list[StackSample], own: list[StackSample] | None = None) -> list[Figure]:
    """Return the figures of a rival and of capnp, whose second turns are as its first ones."""
    own = own or rounds("capnp", *FASTER)
    return figures([*rival, *own, *(replace(one, again=True) for one in own)])


def test_a_cell_has_medians_over_rounds_and_percentiles_of_all_calls_together() -> None:
    found = figures(rounds("json", *STEADY))
    rate = find(found, "json", CALLS)
    assert (rate.value, rate.unit, rate.n, rate.verdict) == (20_080, "calls/s", 11, "ok")
    assert rate.low is not None
    assert rate.high is not None
    assert 20_000 <= rate.low <= rate.value <= rate.high <= 20_160
    assert find(found, "json", MB).value == pytest.approx(20_080 * 32 / 1e6)
    assert find(found, "json", CPU).value == pytest.approx(10)
    # 10 µs for each of 20,080 a second.
    assert find(found, "json", SERVER_BUSY).value == pytest.approx(0.2, rel=0.01)
    assert find(found, "json", GENERATOR_BUSY).value == 0.5
    assert find(found, "json", "p50").value == pytest.approx(1500, rel=0.01)
    assert find(found, "json", "p99").value == pytest.approx(1990, rel=0.01)
    last = find(found, "json", "p99.9")
    assert (last.value, last.verdict) == (pytest.approx(2000, rel=0.01), "ok")
    assert rate.labels == {
        "stack": "json",
        "payload_kind": "text",
        "payload_bytes": 32,
        "loop": "closed",
        "connections": 16,
        "in_flight": 1,
        "figure": "calls_per_s",
    }


def test_a_percentile_is_not_the_mean_of_percentiles() -> None:
    # One round of eleven, with a tenth of all calls, is ten times as slow.
    slow = sample("json", 10, 10_000, service=histogram(*[20 * MS] * 10_000))
    found = find(figures([*rounds("json", *STEADY[:10]), slow]), "json", "p99")
    assert found.value == pytest.approx(20_000, rel=0.01)
    # Without that round it is another figure, so that hardly anything is known of it.
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1990
    assert found.high > 20_000


@pytest.mark.parametrize(("count", "has_interval"), [(5, False), (6, True), (8, True)])
def test_few_rounds_have_no_interval(count: int, has_interval: bool) -> None:
    for figure in ("calls_per_s", "p50"):
        found = find(figures(rounds("json", *STEADY[:count])), "json", figure)
        assert (found.low is not None) == (found.high is not None) == has_interval
        assert found.n == count


def test_a_busy_generator_makes_a_rate_a_lower_bound() -> None:
    found = find(figures(rounds("json", *STEADY, busy=0.95)), "json", CALLS)
    assert (found.verdict, found.reason) == (
        "at least",
        "the generator was 95% busy, the server 20%",
    )
    # In an open loop the rate is given.
    found = find(figures(rounds("json", *STEADY, busy=0.95, loop=OPEN)), "json", CALLS)
    assert found.verdict == "ok"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failures": {"WrongReply: wrong reply": 3}}, "33 calls failed"),
        ({"steal": 0.05}, "5.0% of the CPU time was stolen"),
    ],
)
def test_what_breaks_a_cell_makes_all_its_figures_void(
    changes: dict[str, Any], reason: str
) -> None:
    found = both(rounds("json", *STEADY, **changes))
    for name in (CALLS, CPU, MB, "p50", "p99"):
        figure = find(found, "json", name)
        assert figure.verdict == "void"
        assert reason in figure.reason
    for name in (RATIO_CALLS, RATIO_CPU):
        ratio = find(found, "capnp", name, baseline="json")
        assert ratio.verdict == "void"
        assert reason in ratio.reason
    assert find(found, "capnp", CALLS).verdict == "ok"


def test_a_round_without_calls_is_void_and_not_left_out() -> None:
    gone = sample("json", 3, 0, failures={"EngineFailed: gone": 1}, seconds=0.0)
    samples = [one for one in rounds("json", *STEADY) if one.round != 3]
    found = both([*samples, gone])
    assert find(found, "json", CALLS).verdict == "void"
    assert "EngineFailed: gone" in find(found, "json", CALLS).reason
    ratio = find(found, "capnp", RATIO_CALLS, baseline="json")
    assert (ratio.verdict, ratio.n) == ("void", 10)
    # Where there is nothing else, there is no value.
    found = figures([gone])
    assert [(one.value, one.verdict) for one in found] == [(None, "void")]


def test_a_little_cpu_or_none_has_no_figure_per_call() -> None:
    found = find(figures(rounds("json", *STEADY, server_cpu_s=0.01)), "json", CPU)
    assert (found.verdict, found.reason) == ("void", "under 1 s of server CPU")
    samples = [*rounds("json", *STEADY[:10]), sample("json", 10, server_cpu_s=None)]
    found = find(figures(samples), "json", CPU)
    assert found.verdict == "void"
    assert "not readable" in found.reason


def test_percentiles_with_few_calls_beyond_them_are_void() -> None:
    found = figures(rounds("json", *[200] * 8))
    assert find(found, "json", "p50").verdict == "ok"
    # 16 calls.
    assert find(found, "json", "p99").reason == (
        "under 100 calls beyond it: that takes about 25 s at this rate"
    )


def test_an_open_loop_has_response_times_and_says_when_the_generator_was_late() -> None:
    response = histogram(*[3 * MS] * 10_000)
    samples = rounds("json", *[10_000] * 8, loop=OPEN, response=response, scheduled=10_000)
    found = find(figures(samples), "json", "p50")
    assert (found.value, found.verdict) == (pytest.approx(3000, rel=0.01), "ok")
    late = [replace(one, lateness=histogram(*[MS] * 10_000)) for one in samples]
    found = find(figures(late), "json", "p50")
    assert found.verdict == "void"
    assert codes_of(found.reasons) == {ReasonCode.GENERATOR_LATE}
    few = [replace(one, scheduled=10_500) for one in samples]
    assert find(figures(few), "json", "p50").reason == "95.2% of the schedule was answered"


# --- ratios -----------------------------------------------------------------------------------


def test_a_ratio_is_of_pairs_and_held_against_the_floor() -> None:
    found = both(rounds("json", *STEADY))
    ratio = find(found, "capnp", RATIO_CALLS, baseline="json")
    assert (ratio.value, ratio.verdict, ratio.n) == (pytest.approx(2.0), "faster", 11)
    # What differs from round to round, differs for both.
    assert ratio.low == ratio.high == pytest.approx(2.0)
    assert ratio.labels["floor"] == pytest.approx(0)
    # As much CPU a call.
    assert find(found, "capnp", RATIO_CPU, baseline="json").verdict == "same"
    assert find(found, "capnp", FLOOR_CALLS).verdict == "floor"
    assert find(found, "capnp", FLOOR_CALLS).value == pytest.approx(1.0)


def test_of_a_ratio_within_the_floor_nobody_can_tell() -> None:
    own = rounds("capnp", *STEADY)
    noisy = [
        replace(one, again=True, calls=one.calls * (100 + 10 * (-1) ** one.round) // 100)
        for one in own
    ]
    slower = rounds("json", *[calls * 97 // 100 for calls in STEADY])
    ratio = find(figures([*own, *noisy, *slower]), "capnp", RATIO_CALLS, baseline="json")
    assert ratio.verdict == "cannot tell"
    assert ratio.labels["floor"] > 0.09
    assert ratio.reason.startswith("the ratio lies within the A/A floor of 1")
    uneven = rounds(
        "json", *[calls * (100 + 20 * (-1) ** n) // 100 for n, calls in enumerate(STEADY)]
    )
    ratio = find(figures([*own, *noisy, *uneven]), "capnp", RATIO_CALLS, baseline="json")
    assert ratio.verdict == "cannot tell"


def test_five_pairs_or_no_floor_prove_nothing() -> None:
    ratio = find(
        both(rounds("json", *STEADY[:5]), rounds("capnp", *FASTER[:5])), "capnp", RATIO_CALLS,
        baseline="json",
    )  # fmt: skip
    assert (ratio.verdict, ratio.reason) == ("void", "under 6 pairs")
    alone = figures([*rounds("json", *STEADY), *rounds("capnp", *FASTER)])
    ratio = find(alone, "capnp", RATIO_CALLS, baseline="json")
    assert (ratio.verdict, ratio.reason) == ("void", "no A/A pairs")


def test_a_rival_that_the_generator_limited_gives_no_ratio_of_rates() -> None:
    found = both(rounds("json", *STEADY, busy=0.97))
    ratio = find(found, "capnp", RATIO_CALLS, baseline="json")
    assert (ratio.verdict, ratio.reason) == (
        "void",
        "json: the generator was 97% busy, the server 20%",
    )
    # CPU per call is what it is.
    assert find(found, "capnp", RATIO_CPU, baseline="json").verdict == "same"
    # A server that was as busy could not have answered more.
    busy = rounds("json", *STEADY, busy=0.97, server_cpu_s=0.49)
    assert find(both(busy), "capnp", RATIO_CALLS, baseline="json").verdict == "faster"


def test_a_capnp_that_the_generator_limited_gives_a_lower_bound() -> None:
    own = rounds("capnp", *FASTER, busy=0.97)
    ratio = find(both(rounds("json", *STEADY), own), "capnp", RATIO_CALLS, baseline="json")
    assert ratio.verdict == "faster"
    assert [each.code for each in ratio.reasons] == [
        ReasonCode.LOWER_BOUND,
        ReasonCode.GENERATOR_LIMITED,
    ]


def test_an_echo_is_a_floor_and_has_no_ratio() -> None:
    found = both(rounds("echo", *STEADY))
    assert find(found, "echo", CALLS).contract == "floor: an echo"
    assert not [one for one in found if one.labels.get("baseline") == "echo"]


def test_without_capnp_there_are_no_ratios() -> None:
    assert not [one for one in figures(rounds("json", *STEADY)) if one.unit == "ratio"]


def test_figures_are_those_of_the_samples_that_were_written() -> None:
    own = rounds("capnp", *STEADY)
    samples = [*rounds("json", *STEADY), *own, *(replace(one, again=True) for one in own)]
    read = [
        StackSample(**plain) for plain in json.loads(json.dumps([asdict(one) for one in samples]))
    ]
    assert figures(read) == figures(samples)


# --- tables -----------------------------------------------------------------------------------


def tables_of(found: list[Figure]) -> list[Table]:
    return [part for part in stack_parts(found, {}) if isinstance(part, Table)]


def sentences_of(found: list[Figure], skipped: dict[str, str]) -> list[str]:
    parts = [part.text for part in stack_parts(found, skipped) if isinstance(part, Paragraph)]
    legend = next(at for at, text in enumerate(parts) if text.startswith("≥ at least; ? void; ="))
    return parts[legend + 1 :]


def test_a_ladder_has_the_fastest_first_and_marks_what_is_doubtful() -> None:
    rivals = [
        *rounds("json", *STEADY),
        *rounds("echo", *[calls * 3 for calls in STEADY], busy=0.95),
        *rounds("json", *[5_000] * 11, loop=OPEN, scheduled=5_000),
    ]
    closed, opened = tables_of(both(rivals))
    assert closed.caption == ("32 B of text, closed loop, 16 x 1; A/A floor: calls 0.0%, CPU 0.0%")
    echo, capnp, json_stack = [[cell.text for cell in row.cells] for row in closed.rows]
    assert (echo[0], capnp[0], json_stack[0]) == ("echo", "capnp", "json")
    assert echo[1] == "≥60,240"
    assert echo[-2:] == ["-", "-"]
    assert json_stack[-2:] == ["2.00", "=1.00"]
    assert opened.caption == "32 B of text, open loop at 50% of each one's own rate"
    assert [[cell.text for cell in row.cells[:2]] for row in opened.rows] == [["json", "10,000"]]


def test_what_is_void_and_what_is_missing_is_told_with_its_reasons() -> None:
    found = figures(rounds("json", *[200] * 8))
    assert sentences_of(found, {"grpc": "needs hpack"}) == [
        "grpc was left out: needs hpack",
        ("Void figures, 2, such as: under 100 calls beyond it: that takes about 25 s at this rate"),
        "Void figures, 1: under 1 s of server CPU",
    ]
    marked = [cell.text for table in tables_of(found) for row in table.rows for cell in row.cells]
    assert any(text.startswith("?") for text in marked)


def test_reasons_that_differ_in_their_numbers_are_told_by_an_example() -> None:
    calls = [5_000] * 11
    found = [
        *figures(rounds("json", *calls, failures={"TimeoutError": 3})),
        *figures(rounds("http1", *calls, failures={"TimeoutError": 4})),
    ]
    (line,) = sentences_of(found, {})
    said = "33 calls failed, 33 of them: TimeoutError"
    assert line == f"Void figures, {sum(one.verdict == 'void' for one in found)}, such as: {said}"
