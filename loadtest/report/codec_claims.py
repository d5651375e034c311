"""What a codec benchmark says, in sentences: who wins where, and by how much (no I/O).

A win of the copying codec is told as plainly as one of Cap'n Proto, a tie is called one, and what
the noise hides cannot be told.
"""

from collections.abc import Iterator, Mapping

from capnp_rig.loadtest.report.codec_view import (
    BUILD_ENCODE,
    OPEN,
    READ_ALL,
    READ_ONE,
    CodecView,
    Curve,
    Ratio,
    action,
    thing,
)
from capnp_rig.loadtest.report.document import Claim
from capnp_rig.loadtest.report.units import (
    Text,
    digits,
    interval_text,
    plural,
    ratio_text,
    sentence,
    share_text,
    size_text,
    times_text,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of

TOPIC = "Messages"
CAPNP_NAME = "Cap'n Proto"
_HEADLINES = (READ_ONE, READ_ALL, OPEN, BUILD_ENCODE)
# Shown in the tables; beating the standard library's is no news.
_NO_HEADLINE = "json"
_UNBOUNDED = {ReasonCode.BELOW_MEASURED, ReasonCode.BEYOND_MEASURED}
_FIXED = ("record", "records")
_FIXED_VERBS = {READ_ONE: "reading one field", READ_ALL: "reading all", BUILD_ENCODE: "writing"}


def codec_claims(view: CodecView) -> list[Claim]:
    """Return what is worth saying, the headline baseline first."""
    own = view.own_codec()
    if own is None:
        return []
    claims: list[Claim] = []
    for baseline in view.baselines():
        if baseline == _NO_HEADLINE:
            continue
        curves = {(one.message, one.contract): one for one in view.curves(own, baseline)}
        sized = [
            curve
            for (message, contract), curve in curves.items()
            if contract in _HEADLINES and message not in _FIXED and len(curve.ratios) > 1
        ]
        claims += [curve_claim(curve) for curve in sorted(sized, key=_rank)]
        for message in _FIXED:
            fixed = {
                contract: curve.ratios[0]
                for (one, contract), curve in curves.items()
                if one == message and contract in _FIXED_VERBS
            }
            if fixed:
                even = view.crossing("break-even", own, baseline, message)
                claims.append(fixed_claim(own, baseline, message, fixed, even))
    return claims


def _rank(curve: Curve) -> tuple[int, str]:
    return _HEADLINES.index(curve.contract), curve.message


def curve_claim(curve: Curve) -> Claim:
    """Return the sentence on a sweep over sizes: the largest, the crossover, the smallest."""
    first, last = curve.ratios[0], curve.ratios[-1]
    rival = curve.baseline
    subject = f"{action(curve.contract)} {thing(curve.message)}"
    details = [f"at {size_text(one.size_bytes)} {ratio_detail(one)}" for one in (last, first)]
    detail = f"{curve.codec} over {rival}: {'; '.join(details)}"
    if all(one.standing == "void" for one in curve.ratios):
        return _void(f"{subject}, against {rival}", detail, last)
    return Claim(TOPIC, sentence(f"{subject}: {'; '.join(_curve_clauses(curve))}"), detail)


def _curve_clauses(curve: Curve) -> list[str]:
    first, last, rival = curve.ratios[0], curve.ratios[-1], curve.baseline
    standings = {one.standing for one in curve.ratios}
    if standings <= {"same", "inconclusive"}:
        known = "tie" if standings == {"same"} else "cannot be told apart"
        return [f"{CAPNP_NAME} and {rival} {known} at every size measured"]
    crossed = crossover_clause(curve.crossover, rival)
    if "cannot be told" in crossed and "inconclusive" in {first.standing, last.standing}:
        crossed = ""
    if "at every size" in crossed and standings & {"same", "inconclusive"}:
        # By medians, which decide nothing where the verdict of a size is another.
        crossed = ""
    ends = [
        f"at {size_text(last.size_bytes)} {standing(last, rival)}",
        f"at {size_text(first.size_bytes)} {standing(first, rival, is_short=True)}",
    ]
    return [ends[0], crossed, ends[1]] if crossed else ends


def _void(subject: str, detail: str, ratio: Ratio) -> Claim:
    reason = ratio.reason or "no reason given"
    return Claim(TOPIC, sentence(f"{subject}: no verdict"), detail, void=reason)


def standing(ratio: Ratio, rival: str, own: str = CAPNP_NAME, *, is_short: bool = False) -> str:
    """Return who is ahead, and how far, as a clause; a short one names the winner only."""
    if ratio.standing == "faster":
        return (
            f"{own} is {times_text(ratio.value)} times as fast{'' if is_short else f' as {rival}'}"
        )
    if ratio.standing == "slower":
        times = times_text(1 / ratio.value)
        return f"{rival} is {times} times as fast{'' if is_short else f' as {own}'}"
    if ratio.standing == "same":
        return f"{own} and {rival} tie, within {share_text(ratio.margin)}"
    if ratio.standing == "void":
        return f"the figure is void ({ratio.reason or 'no reason given'})"
    return f"it cannot be told whether {own} or {rival} is ahead"


def ratio_detail(ratio: Ratio) -> str:
    """Return a ratio with what it rests on: interval, A/A floor, n."""
    interval = interval_text(ratio.low, ratio.high, digits)
    floor = "no A/A floor" if ratio.floor is None else f"A/A floor {share_text(ratio.floor)}"
    said = f"{ratio_text(ratio.value)} ({interval or 'no interval'}), {floor}"
    return f"{said}, {plural(ratio.n, 'process')}"


def crossover_clause(figure: Figure | None, rival: str, own: str = CAPNP_NAME) -> str:
    """Return from which size Cap'n Proto is ahead, as a clause; empty where nobody looked."""
    if figure is None:
        return ""
    if figure.value is not None:
        return f"below {size_text(figure.value)}{_bounds(figure, size_text)} {rival} wins"
    ahead, low, high = _throughout(figure)
    if ahead is None:
        return "where they cross cannot be told"
    if low is not None and low != high:
        if ahead:
            return f"{own} is ahead from {size_text(high)} on at the latest"
        return f"{rival} is ahead up to {size_text(low)} at least"
    return f"at every size measured {own if ahead else rival} is ahead"


def break_even_clause(figure: Figure | None, rival: str, own: str = CAPNP_NAME) -> str:
    """Return up to which share of the fields Cap'n Proto is ahead, as a clause."""
    if figure is None:
        return ""
    if figure.value is not None:
        return f"{own} wins up to {_percent(figure.value)} of the fields{_bounds(figure, _percent)}"
    ahead, low, high = _throughout(figure)
    if ahead is None or low is None or high is None:
        return "how many fields make the difference cannot be told"
    if low != high:
        share = f"up to {_percent(low)} of the fields at least"
        return f"{own} wins {share if ahead else f'up to {_percent(high)} of the fields at most'}"
    return f"{own if ahead else rival} is ahead however many fields are read"


def _throughout(figure: Figure) -> tuple[bool | None, float | None, float | None]:
    """Return whether Cap'n Proto is ahead throughout, None if nobody can tell, and the interval."""
    codes = codes_of(figure.reasons)
    ahead = bool(codes & {ReasonCode.AHEAD, ReasonCode.AHEAD_BY_ESTIMATE})
    if not ahead and not codes & {ReasonCode.BEHIND, ReasonCode.BEHIND_BY_ESTIMATE}:
        return None, None, None
    if codes >= _UNBOUNDED:
        return None, None, None
    return ahead, figure.low, figure.high


def _percent(value: float) -> str:
    return f"{digits(value, 2)} %"


def _bounds(figure: Figure, text: Text) -> str:
    if figure.low is None or figure.high is None:
        return " (no interval)"
    least, most = figure.low, figure.high
    codes = codes_of(figure.reasons)
    if codes >= _UNBOUNDED:
        return " (anywhere in what was measured)"
    if ReasonCode.BELOW_MEASURED in codes:
        return f" ({text(most)} or less)"
    if ReasonCode.BEYOND_MEASURED in codes:
        return f" ({text(least)} or more)"
    return f" ({interval_text(least, most, text)})"


def fixed_claim(
    own: str, rival: str, message: str, ratios: Mapping[str, Ratio], even: Figure | None
) -> Claim:
    """Return the sentence on a message of one size: reading one field, all, and writing."""
    chosen = {
        verb: ratios[contract] for contract, verb in _FIXED_VERBS.items() if contract in ratios
    }
    subject = f"{thing(message)} ({size_text(next(iter(ratios.values())).size_bytes)})"
    details = [f"{verb} {ratio_detail(ratio)}" for verb, ratio in chosen.items()]
    detail = f"{own} over {rival}: {'; '.join(details)}"
    if all(ratio.standing == "void" for ratio in ratios.values()):
        return _void(f"{subject}, against {rival}", detail, next(iter(ratios.values())))
    parts = [
        f"{verb}, {standing(ratio, rival, is_short=number > 0)}"
        for number, (verb, ratio) in enumerate(chosen.items())
    ]
    parts.append(break_even_clause(even, rival))
    return Claim(TOPIC, sentence(f"{subject}: {'; '.join(filter(None, parts))}"), detail)


def losses(view: CodecView) -> Iterator[tuple[Curve, Ratio]]:
    """Yield each ratio by which a baseline is ahead of Cap'n Proto."""
    own = view.own_codec()
    if own is None:
        return
    for baseline in view.baselines():
        for curve in view.curves(own, baseline):
            yield from ((curve, ratio) for ratio in curve.ratios if ratio.standing == "slower")
