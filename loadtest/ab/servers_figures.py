"""What a comparison of several servers says, from its blocks alone (no I/O).

A block, which has fresh processes of each server, makes one value per server and metric; a figure
is their median, with its interval. A ratio is that of each server to the first, paired by block,
and the first has two processes in each block: their ratio is the A/A.
"""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.ab.blocks import Blocks
from capnp_rig.loadtest.ab.judging import Measured, measured
from capnp_rig.loadtest.bench.pair_figures import ratio_figures, value_figure, voided
from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

PERCENTILES = (50.0, 99.0, 99.9)


def again(name: str) -> str:
    """Return what the second process of a server is called; no server has such a name."""
    return f"{name} again"


def figures(names: Sequence[str], load: str, blocks: Blocks) -> list[Figure]:
    """Return the figures of the servers with these names; `load` is as ``64 x 1``."""
    first, *others = names
    listed = [figure for name in names for figure in _values(load, name, blocks.of(name))]
    for number, name in enumerate(others):
        ratios = _ratios(load, first, name, blocks.of(first, again(first), name))
        for both in ratios:
            # The A/A is the same for all of them.
            listed += both if not number else both[1:]
    return listed


def _values(load: str, name: str, blocks: Blocks) -> Iterator[Figure]:
    failed = _failed(blocks)
    for metric in measured(blocks, PERCENTILES):
        busy = [each for each in metric.problems if each.code is ReasonCode.GENERATOR_BUSY]
        problems = failed or tuple(each for each in metric.problems if each not in busy)
        values = () if failed else metric.values.get(name, ())
        figure = value_figure(load, name, metric.name, metric.unit, values, *busy)
        yield from voided([figure], problems)


def _ratios(load: str, first: str, name: str, blocks: Blocks) -> Iterator[list[Figure]]:
    if _failed(blocks):
        return
    names = {BASELINE: first, CANDIDATE: name}
    for metric in measured(blocks, PERCENTILES):
        if metric.has_ratio:
            of_role = {BASELINE: first, CANDIDATE: name, AGAIN: again(first)}
            costs = {role: _costs(metric, of) for role, of in of_role.items()}
            yield voided(ratio_figures(load, metric.name, names, costs), metric.problems)


def _failed(blocks: Blocks) -> tuple[Reason, ...]:
    """Return that calls failed, if any did: who fails may be fast."""
    count = blocks.failures.total()
    return (Reason.of(ReasonCode.CALLS_FAILED, count=count),) if count else ()


def _costs(metric: Measured, name: str) -> list[float]:
    """Return values of which less is better."""
    values = metric.values[name]
    return [1 / value for value in values] if metric.is_higher_better else list(values)
