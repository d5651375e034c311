from dataclasses import replace

import pytest

from capnp_rig.loadtest.bench.plan import (
    BASELINES,
    CAPNP,
    ECHOES,
    EMPTY_RPC,
    FLOOR,
    ORJSON,
    OUT_OF_BAND,
    PLANS,
    TRAVELLERS,
    Case,
    Plan,
    groups,
    memory_cases,
    order,
    ratios_of,
)
from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import (
    COLD,
    COLUMN_CONTRACTS,
    CONTRACTS,
    READ_ALL,
    READ_ONE,
    ROUND_TRIP,
    RPC,
    TRANSPORTED,
)
from capnp_rig.loadtest.stats.messages import AGAIN, RECORD_BYTES, SIZES_BYTES, Message

EVERY_PLAN = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
FULL, QUICK, TINY = PLANS["full"], PLANS["quick"], PLANS["tiny"]


def cases_of(plan: Plan) -> list[Case]:
    return [case for group in groups(plan) for case in group]


@EVERY_PLAN
@pytest.mark.parametrize("process", [0, 1, 7])
def test_every_process_runs_every_case_once(plan: Plan, process: int) -> None:
    cases = cases_of(plan)
    assert len(set(cases)) == len(cases)
    assert len({case.name for case in cases}) == len(cases)
    assert sorted(order(plan, process), key=repr) == sorted(cases, key=repr)


def test_half_the_processes_go_ab_and_half_ba() -> None:
    assert order(TINY, 0) == order(TINY, 1)[::-1]
    assert order(TINY, 0) != order(TINY, 2)


@EVERY_PLAN
def test_members_of_a_group_are_adjacent(plan: Plan) -> None:
    places = {case: place for place, case in enumerate(order(plan, 5))}
    for group in groups(plan):
        found = sorted(places[case] for case in group)
        assert found == list(range(found[0], found[0] + len(group)))


@EVERY_PLAN
def test_a_group_shares_message_contract_and_size(plan: Plan) -> None:
    for group in groups(plan):
        if group[0].contract != FLOOR:
            assert len({(case.message, case.contract, case.size_bytes) for case in group}) == 1


@EVERY_PLAN
def test_codecs_are_timed_under_what_they_support_and_no_more(plan: Plan) -> None:
    for case in cases_of(plan):
        if case.contract != FLOOR:
            assert CODECS[case.codec].supports(Message(case.message), case.contract)


@EVERY_PLAN
def test_a_baseline_is_timed_twice_wherever_it_is_timed(plan: Plan) -> None:
    for group in groups(plan):
        subjects = {case.subject for case in group if not case.gc}
        for baseline in BASELINES:
            assert (baseline in subjects) is (baseline + AGAIN in subjects)


def test_the_full_plan_has_every_contract_and_size() -> None:
    cases = cases_of(FULL)
    assert {case.contract for case in cases} == {*CONTRACTS, FLOOR}
    for message in (Message.TEXT, Message.TENSOR):
        sizes = {c.size_bytes for c in cases if (c.message, c.contract) == (message, READ_ALL)}
        assert sizes == set(SIZES_BYTES)
    for message in (Message.RECORD, Message.RECORDS):
        percents = {case.percent for case in cases if case.message == message}
        assert percents >= {0, 1, 10, 50, 100}
    assert {case.subject for case in cases if case.gc} == {
        name for name, codec in CODECS.items() if codec.supports(Message.RECORDS, READ_ALL)
    }
    assert next(case.size_bytes for case in cases if case.contract == COLD) == 1 << 20


def test_the_quick_plan_is_a_part_of_the_full_one_but_for_sizes() -> None:
    assert {case.contract for case in cases_of(QUICK)} <= {case.contract for case in cases_of(FULL)}
    assert len(cases_of(QUICK)) < len(cases_of(FULL)) / 2
    assert QUICK.processes == 6


@EVERY_PLAN
def test_what_goes_over_a_transport_goes_over_all_and_in_memory_too(plan: Plan) -> None:
    cases = cases_of(plan)
    for contract in TRANSPORTED:
        carried = {(c.subject, c.message, c.size_bytes) for c in cases if c.contract == contract}
        assert {subject.removesuffix(AGAIN) for subject, _, _ in carried} <= {*TRAVELLERS}
        for other in (ROUND_TRIP, *TRANSPORTED):
            assert carried <= {
                (c.subject, c.message, c.size_bytes) for c in cases if c.contract == other
            }


def test_columns_are_timed_at_three_sizes_against_the_strongest() -> None:
    cases = [case for case in cases_of(FULL) if case.message == Message.TABLE]
    assert {case.contract for case in cases} == {*COLUMN_CONTRACTS}
    assert {case.size_bytes // RECORD_BYTES for case in cases} == {100, 1_000, 100_000}
    many = {case.codec for case in cases if case.size_bytes == 100_000 * RECORD_BYTES}
    assert many >= {"wire", "orjson", "msgspec MessagePack", "protobuf", OUT_OF_BAND}
    # These take seconds per call.
    assert not many & {"pycapnp", "json"}


def test_the_full_plan_carries_every_message_with_every_traveller() -> None:
    for contract in TRANSPORTED:
        carried = [case for case in cases_of(FULL) if case.contract == contract]
        assert {case.message for case in carried} == {*Message} - {Message.TABLE}
        assert {case.codec for case in carried} == {*TRAVELLERS}


@EVERY_PLAN
def test_each_transport_has_its_floors(plan: Plan) -> None:
    floors = [case for case in cases_of(plan) if case.contract == FLOOR]
    for echo in ECHOES:
        assert {case.size_bytes for case in floors if case.subject == echo} == {*plan.echoed}
    assert [case.subject for case in floors].count(EMPTY_RPC) == 1


@pytest.mark.parametrize(
    ("case", "transport"),
    [
        (Case("wire", "text", "round trip over a socket pair", 64), "a socket pair"),
        (Case("wire", "text", "round trip over RPC", 64), RPC),
        (Case("echo over TCP", "", FLOOR, 64), "TCP"),
        (Case(EMPTY_RPC, "", FLOOR, 0), RPC),
        (Case("memcpy", "", FLOOR, 64), ""),
        (Case("wire", "text", ROUND_TRIP, 64), ""),
    ],
)
def test_a_case_knows_its_transport(case: Case, transport: str) -> None:
    assert case.transport == transport


def test_ratios_are_taken_against_orjson_and_of_capnp_against_out_of_band_too() -> None:
    names = ["wire", "msgpack", ORJSON, OUT_OF_BAND, ORJSON + AGAIN, OUT_OF_BAND + AGAIN]
    group = [Case(name, "tensor", READ_ONE, 64) for name in names]
    found = {
        (old.subject, second.subject): [case.subject for case in candidates]
        for old, second, candidates in ratios_of(group)
    }
    assert found == {
        (ORJSON, ORJSON + AGAIN): ["wire", "msgpack", OUT_OF_BAND],
        (OUT_OF_BAND, OUT_OF_BAND + AGAIN): ["wire"],
    }


def test_without_a_second_timing_or_with_gc_there_is_no_ratio() -> None:
    group = [Case("wire", "text", READ_ALL, 64), Case(ORJSON, "text", READ_ALL, 64)]
    assert ratios_of(group) == []
    with_gc = [
        replace(case, gc=True) for case in [*group, Case(ORJSON + AGAIN, "text", READ_ALL, 64)]
    ]
    assert ratios_of(with_gc) == []


def test_capnp_names_are_codecs() -> None:
    assert set(CAPNP) == {name for name in CODECS if name.startswith(("wire", "pycapnp"))}


def test_memory_is_weighed_reading_and_going_round() -> None:
    found = memory_cases(TINY)
    assert [(case.codec, case.contract) for case in found] == [
        ("wire", READ_ONE),
        (ORJSON, READ_ONE),
        ("wire", ROUND_TRIP),
        (ORJSON, ROUND_TRIP),
    ]
    # A text has no part to read.
    assert {case.contract for case in memory_cases(FULL) if case.message == "text"} == {
        READ_ALL,
        ROUND_TRIP,
    }


def test_a_case_names_all_that_makes_it_differ() -> None:
    case = Case("wire", "tensor", READ_ALL, 64, gc=True)
    assert case.name == "tensor, open+read 100%, 64 B, wire, GC on"
    assert Case("memcpy", "", FLOOR, 64).name == "floor, 64 B, memcpy"
    assert case.labels() == {
        "codec": "wire",
        "message": "tensor",
        "contract": READ_ALL,
        "size_bytes": 64,
        "k": 100,
    }
