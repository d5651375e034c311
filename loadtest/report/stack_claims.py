"""What a comparison of stacks says, in sentences (no I/O)."""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.report.codec_view import NOISY
from capnp_rig.loadtest.report.document import Claim
from capnp_rig.loadtest.report.stack_view import (
    CALLS,
    RATIO_CALLS,
    Payload,
    payload_of,
    payloads_of,
    select,
    stack_of,
)
from capnp_rig.loadtest.report.units import (
    count_text,
    interval_text,
    joined,
    plural,
    ratio_text,
    sentence,
    share_text,
    times_text,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of

TOPIC = "Servers"


def stack_claims(figures: Sequence[Figure]) -> Iterator[Claim]:
    """Yield a sentence on the smallest and on the largest payload of each kind."""
    rates, ratios = select(figures, CALLS), select(figures, RATIO_CALLS)
    payloads = payloads_of([*rates, *ratios])
    for kind in dict.fromkeys(payload.kind for payload in payloads):
        own = [payload for payload in payloads if payload.kind == kind]
        for payload in dict.fromkeys([own[0], own[-1]]):
            yield _claim(
                payload,
                [one for one in rates if payload_of(one) == payload],
                [one for one in ratios if payload_of(one) == payload],
            )


def _claim(payload: Payload, rates: Sequence[Figure], ratios: Sequence[Figure]) -> Claim:
    void = ""
    if ratios and all(one.verdict == "void" for one in ratios):
        void = "; ".join(dict.fromkeys(one.reason or "no reason given" for one in ratios))
    text = ratios_text(rates, ratios) if ratios else rates_text(rates)
    return Claim(
        TOPIC, sentence(f"with {payload.text} payloads, {text}"), ratios_detail(ratios), void
    )


def rates_text(rates: Sequence[Figure]) -> str:
    """Return calls per second of every stack, the most first: of a result without ratios."""
    ordered = sorted(rates, key=lambda one: one.value or 0.0, reverse=True)
    good = [f"{stack_of(one)} {rate_text(one)}" for one in ordered if one.verdict != "void"]
    voids = [stack_of(one) for one in ordered if one.verdict == "void"]
    left = f"; void: {', '.join(voids)}" if voids else ""
    return f"calls/s, most first: {', '.join(good) or 'none'}{left}"


def rate_text(figure: Figure) -> str:
    """Return a rate with what limits it."""
    return f"{'at least ' if figure.verdict == 'at least' else ''}{count_text(figure.value)}"


def ratios_text(rates: Sequence[Figure], ratios: Sequence[Figure]) -> str:
    """Return whom a stack beats, who beats it, and with whom it cannot be told, as clauses."""
    own = stack_of(ratios[0])
    groups: dict[str, list[Figure]] = {}
    for one in sorted(ratios, key=lambda one: one.value or 0.0):
        groups.setdefault(_standing(one), []).append(one)
    rate = next((f" ({rate_text(one)}/s)" for one in rates if stack_of(one) == own), "")
    parts = []
    if "faster" in groups:
        times = [f"{_times(one)} those of {_rival(one)}" for one in groups["faster"]]
        times[0] = times[0].replace(" those of ", " the calls of ", 1)
        parts.append(f"{own}{rate} makes {joined(times)}")
    if "slower" in groups:
        times = [f"{_rival(one)} makes {_times(one)} the calls" for one in groups["slower"]]
        parts.append(f"{joined(times)} of {own}{'' if parts else rate}")
    for standing, said in (("same", "tie"), ("inconclusive", "cannot be told apart")):
        if standing in groups:
            rivals = [*map(_rival, groups[standing]), f"{own}{'' if parts else rate}"]
            parts.append(f"{joined(rivals)} {said}")
    if "void" in groups:
        parts.append(f"no verdict on {joined([*map(_rival, groups['void'])])}")
    return "; ".join(parts)


def _rival(ratio: Figure) -> str:
    return str(ratio.labels.get("baseline", "the baseline"))


def _times(ratio: Figure) -> str:
    """Return how many times better the better one is."""
    value = ratio.value or 1.0
    least = "at least " if ReasonCode.LOWER_BOUND in codes_of(ratio.reasons) else ""
    return f"{least}{times_text(max(value, 1 / value))} times"


def _standing(figure: Figure) -> str:
    floor = figure.labels.get("floor")
    if figure.verdict == "same" and floor is not None and floor > NOISY:
        return "inconclusive"
    return figure.verdict


def ratios_detail(ratios: Sequence[Figure]) -> str:
    """Return ratios with their intervals, and once what they have in common."""
    if not ratios:
        return ""
    listed = [
        f"{stack_of(one)} over {one.labels.get('baseline', 'the baseline')} "
        f"{ratio_text(one.value)} ({interval_text(one.low, one.high, ratio_text) or 'no interval'})"
        for one in ratios
    ]
    floors = [one.labels["floor"] for one in ratios if one.labels.get("floor") is not None]
    floor = f"A/A floor {share_text(max(floors))}" if floors else "no A/A floor"
    return f"{', '.join(listed)}; {floor}, {plural(min(one.n for one in ratios), 'round')}"
