"""Which rival of Cap'n Proto is the strongest: the first line of a benchmark's output (no I/O)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from capnp_rig.loadtest.bench.stacks_figures import CLOSED, RATIO_CALLS, RATIO_CPU
from capnp_rig.loadtest.report.codec_view import CAPNP, FLOOR, CodecView, grouped, matching
from capnp_rig.loadtest.report.document import Paragraph
from capnp_rig.loadtest.report.stack_ladder import payload_of
from capnp_rig.loadtest.report.units import plural
from capnp_rig.loadtest.results import Figure


def codec_rival(view: CodecView) -> Iterator[Paragraph]:
    """Yield which codec is most often the fastest of the others; nothing if there is none.

    A case is a message, a contract and a size: times of different contracts share no figure.
    """
    own = view.own_codec
    fastest: Counter[str] = Counter()
    won: Counter[tuple[str, bool]] = Counter()
    for (_, contract, _), here in grouped(
        view.times(), "message", "contract", "size_bytes"
    ).items():
        times = {
            str(figure.labels["codec"]): figure.value
            for figure in here
            if figure.value is not None and not figure.is_void
        }
        rivals = {codec: time_ns for codec, time_ns in times.items() if codec not in CAPNP}
        if contract == FLOOR or own not in times or not rivals:
            continue
        fastest[min(rivals, key=rivals.__getitem__)] += 1
        won.update((codec, times[own] < time_ns) for codec, time_ns in rivals.items())
    if not fastest:
        return
    rival, count = fastest.most_common(1)[0]
    yield Paragraph(
        f"Strongest rival: {rival}, the fastest of the others in {count} of "
        f"{plural(fastest.total(), 'case')}; by the medians {own} takes less time than {rival} in "
        f"{won[rival, True]}, more in {won[rival, False]}."
    )


def stack_rival(figures: Sequence[Figure]) -> Iterator[Paragraph]:
    """Yield which stack is most often the best of the others in a closed loop; nothing without.

    By server CPU per call, which other programs disturb the least; else by calls/s.
    """
    for what, named in ((RATIO_CPU, "server CPU per call"), (RATIO_CALLS, "calls/s")):
        ratios = [
            figure
            for figure in matching(figures, figure=what, loop=CLOSED)
            if figure.value is not None and not figure.is_void
        ]
        best = Counter(map(_rival_of, _strongest(ratios)))
        if best:
            rival, count = best.most_common(1)[0]
            verdicts = Counter(str(each.verdict) for each in ratios if _rival_of(each) == rival)
            told = ", ".join(f"{verdict} in {times}" for verdict, times in verdicts.items())
            yield Paragraph(
                f"Strongest rival: {rival}, the best of the others in {named} with {count} of "
                f"{plural(best.total(), 'payload')}. capnp against it: {told}."
            )
            return


def _strongest(ratios: Iterable[Figure]) -> Iterator[Figure]:
    """Yield the ratio of each payload that is the least in favour of capnp."""
    by_payload: dict[object, list[Figure]] = {}
    for figure in ratios:
        by_payload.setdefault(payload_of(figure), []).append(figure)
    for here in by_payload.values():
        yield min(here, key=lambda figure: figure.value or 0.0)


def _rival_of(figure: Figure) -> str:
    return str(figure.labels["baseline"])
