"""Whether the processes of a run got the same first replies (no I/O).

Within a process, each reply to constant params must equal the first one (`workload.checks`).
Processes cannot know each other's: their first replies are compared when the run is over.
"""

from collections.abc import Iterable

from capnp_rig.loadtest.stats.failures import CallTexts, FailedCall, WrongReply, kind_of, with_call
from capnp_rig.loadtest.stats.tally import FirstReply, Report, Window, add

_OTHER_PROCESS = WrongReply("wrong reply: not the first one of another process or repeat")


def compare_firsts(
    reports: Iterable[Report], known: dict[str, FirstReply], wrong: WrongReply = _OTHER_PROCESS
) -> list[Report]:
    """Return the reports of a run, with a wrong reply for each first reply that is another.

    What is not in `known` yet is added to it. A wrong one counts as one failed call of second 0,
    by the kind of `wrong`, although the later replies of its process were equal to it.
    """
    return [_compared(report, known, wrong) for report in reports]


def _compared(report: Report, known: dict[str, FirstReply], wrong: WrongReply) -> Report:
    examples = []
    for place, first in report.firsts.items():
        right = known.setdefault(place, first)
        digest, request, came = first
        if right[0] != digest:
            examples.append(_example(wrong, CallTexts(request or place, right[2], came)))
    if not examples:
        return report
    window = Window(failures={kind_of(wrong): len(examples)})
    return add(report, Report({0: window}, examples=tuple(examples)))


def _example(wrong: WrongReply, texts: CallTexts) -> FailedCall:
    error = with_call(WrongReply(*wrong.args), lambda: texts)
    return FailedCall.of(kind_of(wrong), error)
