import pytest
from sample_results import crossover, ratio

from capnp_rig.loadtest.report.codec_claims import (
    break_even_clause,
    codec_claims,
    crossover_clause,
    curve_claim,
    fixed_claim,
    losses,
    standing,
)
from capnp_rig.loadtest.report.codec_view import (
    BUILD_ENCODE,
    READ_ALL,
    READ_ONE,
    CodecView,
    Curve,
    Ratio,
)
from capnp_rig.loadtest.results import Figure


def _ratio(figure: Figure) -> Ratio:
    (curve,) = CodecView([figure]).curves("wire", "orjson")
    return curve.ratios[0]


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (ratio(1500.0), "Cap'n Proto is 1,500 times as fast as orjson"),
        (ratio(0.25), "orjson is 4 times as fast as Cap'n Proto"),
        (ratio(1.004, verdict="same"), "Cap'n Proto and orjson tie, within 2 %"),
        (ratio(1.004, verdict="same", floor=0.05), "Cap'n Proto and orjson tie, within 5 %"),
        # Beyond a floor of 25 % everything would tie.
        (
            ratio(0.5, verdict="same", floor=1.4),
            "it cannot be told whether Cap'n Proto or orjson is ahead",
        ),
        (
            ratio(1.03, verdict="inconclusive"),
            "it cannot be told whether Cap'n Proto or orjson is ahead",
        ),
        (
            ratio(3.0, verdict="void", reason="under 6 pairs"),
            "the figure is void (under 6 pairs)",
        ),
    ],
)
def test_who_is_ahead_and_how_far(figure: Figure, said: str) -> None:
    assert standing(_ratio(figure), "orjson") == said


def test_a_short_clause_names_the_winner_alone() -> None:
    assert standing(_ratio(ratio(3.0)), "orjson", is_short=True) == "Cap'n Proto is 3 times as fast"
    assert standing(_ratio(ratio(0.5)), "orjson", is_short=True) == "orjson is 2 times as fast"


_BEYOND = "the interval reaches beyond what was measured"
_BELOW = "the interval reaches below what was measured"


@pytest.mark.parametrize(
    ("figure", "said"),
    [
        (None, ""),
        (crossover(200.0, 150.0, 260.0), "below 200 B (150 to 260 B) orjson wins"),
        (crossover(200.0, reason="too few processes"), "below 200 B (no interval) orjson wins"),
        (
            crossover(800e3, 700e3, 4 << 20, _BEYOND),
            "below 781 KiB (684 KiB or more) orjson wins",
        ),
        (crossover(200.0, 64.0, 260.0, _BELOW), "below 200 B (260 B or less) orjson wins"),
        (
            crossover(200.0, 64.0, 4 << 20, f"{_BELOW}; {_BEYOND}"),
            "below 200 B (anywhere in what was measured) orjson wins",
        ),
        (
            crossover(None, 64.0, 64.0, f"ahead throughout; {_BELOW}"),
            "at every size measured Cap'n Proto is ahead",
        ),
        (
            crossover(None, 4 << 20, 4 << 20, f"behind throughout; {_BEYOND}"),
            "at every size measured orjson is ahead",
        ),
        (
            crossover(None, 64.0, 1024.0, f"ahead throughout; {_BELOW}"),
            "Cap'n Proto is ahead from 1 KiB on at the latest",
        ),
        (
            crossover(None, 1024.0, 4 << 20, f"behind throughout; {_BEYOND}"),
            "orjson is ahead up to 1 KiB at least",
        ),
        (
            crossover(None, 64.0, 4 << 20, f"ahead throughout; {_BELOW}; {_BEYOND}"),
            "where they cross cannot be told",
        ),
        (
            crossover(None, None, None, "ahead throughout; too few processes for an interval"),
            "at every size measured Cap'n Proto is ahead",
        ),
        (crossover(None, None, None, "nobody knows"), "where they cross cannot be told"),
    ],
)
def test_where_a_ratio_crosses_one(figure: Figure | None, said: str) -> None:
    assert crossover_clause(figure, "orjson") == said


@pytest.mark.parametrize(
    ("value", "low", "high", "reason", "said"),
    [
        (11.0, 7.0, 21.0, "", "Cap'n Proto wins up to 11 % of the fields (7 to 21 %)"),
        (
            *(None, 1.0, 1.9, f"behind throughout; {_BELOW}"),
            "Cap'n Proto wins up to 1.9 % of the fields at most",
        ),
        (
            *(None, 44.0, 100.0, f"ahead throughout; {_BEYOND}"),
            "Cap'n Proto wins up to 44 % of the fields at least",
        ),
        (
            *(None, 100.0, 100.0, f"ahead throughout; {_BEYOND}"),
            "Cap'n Proto is ahead however many fields are read",
        ),
        (
            *(None, 1.0, 1.0, f"behind throughout; {_BELOW}"),
            "orjson is ahead however many fields are read",
        ),
        (
            *(None, 1.0, 100.0, f"ahead throughout; {_BELOW}; {_BEYOND}"),
            "how many fields make the difference cannot be told",
        ),
        (
            *(None, None, None, "ahead throughout; too few processes for an interval"),
            "how many fields make the difference cannot be told",
        ),
    ],
)
def test_how_much_of_a_message_may_be_read(
    value: float | None, low: float | None, high: float | None, reason: str, said: str
) -> None:
    figure = crossover(value, low, high, reason, kind="break-even")
    assert break_even_clause(figure, "orjson") == said


def _curve(*ratios: Figure, crossed: Figure | None = None) -> Curve:
    sizes = (64, 4 << 20)
    own = [
        _ratio(ratio(one.value or 0.0, size_bytes=size, verdict=one.verdict, reason=one.reason))
        for size, one in zip(sizes, ratios, strict=True)
    ]
    return Curve("wire", "orjson", "tensor", READ_ONE, own, crossed)


def test_a_sweep_in_a_sentence() -> None:
    claim = curve_claim(_curve(ratio(0.5), ratio(1500), crossed=crossover(200.0, 150.0, 260.0)))
    assert claim.text == (
        "Opening and reading one field of a tensor: at 4 MiB Cap'n Proto is 1,500 times as fast "
        "as orjson; below 200 B (150 to 260 B) orjson wins; at 64 B orjson is 2 times as fast."
    )
    assert claim.detail == (
        "wire over orjson: at 4 MiB 1,500 (1,430 to 1,580), A/A floor 1 %, 12 processes; "
        "at 64 B 0.5 (0.476 to 0.525), A/A floor 1 %, 12 processes"
    )
    assert claim.void == ""


def test_a_sweep_without_a_difference() -> None:
    same, unsure = ratio(1.0, verdict="same"), ratio(1.0, verdict="inconclusive")
    subject = "Opening and reading one field of a tensor: Cap'n Proto and orjson"
    assert curve_claim(_curve(same, same)).text == f"{subject} tie at every size measured."
    assert curve_claim(_curve(same, unsure)).text == (
        f"{subject} cannot be told apart at every size measured."
    )


def test_what_nobody_can_tell_is_said_once() -> None:
    unknown = crossover(None, 64.0, 4 << 20, f"ahead throughout; {_BELOW}; {_BEYOND}")
    claim = curve_claim(_curve(ratio(2), ratio(1, verdict="inconclusive"), crossed=unknown))
    assert claim.text.count("cannot be told") == 1


def test_a_void_sweep_claims_nothing() -> None:
    void = ratio(2.0, verdict="void", reason="under 6 pairs")
    claim = curve_claim(_curve(void, void))
    assert claim.text == ("Opening and reading one field of a tensor, against orjson: no verdict.")
    assert claim.void == "under 6 pairs"


def test_a_message_of_one_size_in_a_sentence() -> None:
    ratios = {
        READ_ONE: _ratio(ratio(34.0, size_bytes=136_000)),
        READ_ALL: _ratio(ratio(0.25, size_bytes=136_000)),
        BUILD_ENCODE: _ratio(ratio(0.02, size_bytes=136_000)),
    }
    even = crossover(11.0, 7.0, 21.0, kind="break-even")
    claim = fixed_claim("wire", "orjson", "records", ratios, even)
    assert claim.text == (
        "1,000 records (133 KiB): reading one field, Cap'n Proto is 34 times as fast as orjson; "
        "reading all, orjson is 4 times as fast; writing, orjson is 50 times as fast; "
        "Cap'n Proto wins up to 11 % of the fields (7 to 21 %)."
    )


def test_a_message_of_one_size_that_only_went_there_and_back_has_no_sentence_here() -> None:
    own = Figure("time", 1.0, "ns", READ_ALL, 12, labels={"codec": "wire", "kind": "time"})
    trip = ratio(2.0, message="record", contract="round trip in memory", size_bytes=136)
    assert codec_claims(CodecView([own, trip])) == []


def test_the_headline_rival_comes_first_and_the_standard_library_not_at_all() -> None:
    figures = [
        ratio(value, size_bytes=size, baseline=baseline)
        for baseline in ("pickle 5 out of band", "json", "orjson")
        for size, value in ((64, 0.5), (4096, 3.0))
    ]
    own = Figure("time", 1.0, "ns", READ_ALL, 12, labels={"codec": "wire", "kind": "time"})
    claims = codec_claims(CodecView([own, *figures]))
    assert [claim.detail.partition(":")[0] for claim in claims] == [
        "wire over orjson",
        "wire over pickle 5 out of band",
    ]


def test_every_loss_is_listed() -> None:
    own = Figure("time", 1.0, "ns", READ_ALL, 12, labels={"codec": "wire", "kind": "time"})
    figures = [ratio(0.5), ratio(0.8, size_bytes=1024), ratio(2.0, size_bytes=4096)]
    found = list(losses(CodecView([own, *figures])))
    assert [one.size_bytes for _, one in found] == [64, 1024]


def test_a_benchmark_without_capn_proto_claims_nothing() -> None:
    assert codec_claims(CodecView([ratio(2.0)])) == []
