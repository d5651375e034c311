import pytest

from capnp_rig.loadtest.engine.search import figures
from capnp_rig.loadtest.stats.rate_search import Answer, Limit


@pytest.mark.parametrize(
    ("answer", "is_over", "verdict", "reason"),
    [
        (Answer(900.0, 940.0, Limit.SERVER, 5), True, "ok", ""),
        (Answer(900.0, None, Limit.SEARCH, 5), True, "ok", ""),
        (
            Answer(900.0, 940.0, Limit.MACHINE, 5),
            *(True, "at least", "the limit was a disturbed machine"),
        ),
        (Answer(900.0, 940.0, Limit.GENERATOR, 5), True, "at least", "the limit was the generator"),
        (Answer(None, 940.0, Limit.MACHINE, 0), True, "void", "no rate was verified"),
        (Answer(900.0, 940.0, Limit.SERVER, 5), False, "void", "ended early"),
    ],
)
def test_the_highest_rate_is_judged(
    answer: Answer, is_over: bool, verdict: str, reason: str
) -> None:
    highest, lowest = figures(answer, (), is_over=is_over)
    assert (highest.value, highest.verdict, highest.reason) == (answer.rate_hz, verdict, reason)
    assert lowest.value == answer.failing_hz
