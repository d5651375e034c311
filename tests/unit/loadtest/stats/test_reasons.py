from string import Formatter

import pytest

from capnp_rig.loadtest.stats.reasons import (
    _EARLIER_TEXTS,
    Reason,
    ReasonCode,
    codes_of,
    reasons_of_text,
    text_of,
)


def _sample(code: ReasonCode) -> Reason:
    """Return a reason whose every number is shown as it is."""
    values: dict[str, float | str] = {}
    for _, name, spec, _ in Formatter().parse(code.template):
        if name:
            values[name] = "some words" if not spec else 0.25 if spec.endswith("%") else 1234
    return Reason.of(code, **values)


@pytest.mark.parametrize("code", ReasonCode)
def test_a_reason_is_read_back_from_words_and_from_json(code: ReasonCode) -> None:
    reason = _sample(code)
    assert reasons_of_text(reason.text) == (reason,)
    assert Reason.from_json(reason.to_json()) == reason


@pytest.mark.parametrize(("code", "text"), _EARLIER_TEXTS)
def test_words_of_earlier_versions_are_read(code: ReasonCode, text: str) -> None:
    shown = text.format(busy=0.95, late_us=1234.0, median_us=10.0)
    assert codes_of(reasons_of_text(shown)) == {code}


def test_several_reasons_stand_in_one_line_each_once() -> None:
    late = _sample(ReasonCode.GENERATOR_LATE)
    failed = Reason.of(ReasonCode.CALLS_FAILED, count=3)
    line = text_of([failed, late, failed])
    assert line.startswith("3 calls failed; the generator was late")
    assert reasons_of_text(line) == (failed, late)
    assert reasons_of_text("") == ()


def test_a_reason_may_be_of_another_than_the_figure() -> None:
    reason = Reason.of(ReasonCode.STEAL, subject="http1", share=0.05)
    assert reason.text == "http1: 5.0% of the CPU time was stolen by other machines"
    assert reasons_of_text(reason.text) == (reason,)
    assert Reason.from_json(reason.to_json()) == reason


def test_a_lower_bound_of_an_earlier_version_is_two_reasons() -> None:
    found = reasons_of_text("a lower bound: the server was 97% busy")
    assert found == (Reason(ReasonCode.LOWER_BOUND), Reason.of(ReasonCode.SERVER_BUSY, busy=0.97))


def test_unknown_words_stay_as_they_are() -> None:
    (reason,) = reasons_of_text("ValueError: out of range")
    assert (reason.code, reason.text) == (ReasonCode.OTHER, "ValueError: out of range")


@pytest.mark.parametrize(
    ("plain", "error"),
    [({"code": "unheard-of"}, ValueError), ({"code": "calls-failed"}, KeyError), ({}, KeyError)],
)
def test_damaged_json_is_refused(plain: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Reason.from_json(plain)
