"""Which worker runs on which CPU: a pure plan, carried out by the worker itself."""

from collections.abc import Iterable


def plan_affinity(cpus: Iterable[int], workers: int) -> tuple[int, ...]:
    """Return the CPU of each worker, lowest number first.

    More workers than CPUs share them evenly, in turns.

    Raises:
        ValueError: There is no CPU, or no worker.
    """
    ordered = sorted(set(cpus))
    if not ordered or workers < 1:
        raise ValueError("a plan needs at least one CPU and one worker")
    return tuple(ordered[index % len(ordered)] for index in range(workers))
