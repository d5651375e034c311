"""How many CPUs this process may use: its CPU set, and the quota of its control groups.

A container of 2 CPUs on a machine of 64 has a quota of 2 and, most often, a set of 64.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

# Returns the text of a file, None if there is none.
Read = Callable[[str], str | None]
_ROOT = "/sys/fs/cgroup"


def default_workers() -> int:
    """Return one worker per CPU that this process may use."""
    return workers_for(len(os.sched_getaffinity(0)), cpu_quota(_read))


def workers_for(cpus: int, quota: float | None) -> int:
    """Return the workers for a set of `cpus` and a quota in CPUs, None if there is no quota.

    Part of a CPU counts as one: with 1.5, two workers share what one could not use.
    """
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpu_quota(read: Read) -> float | None:
    """Return the least quota of the control groups of this process, in CPUs; None without one.

    Each group up to the root may have one. In a container the path of its own group may not be
    there: then the root is its group.
    """
    quotas = []
    for line in (read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            folder = str(group).rstrip("/")
            if not controllers:
                quotas.append(_of_v2(read(f"{_ROOT}{folder}/cpu.max")))
            elif "cpu" in controllers.split(","):
                quotas.append(
                    _of_v1(
                        read(f"{_ROOT}/cpu{folder}/cpu.cfs_quota_us"),
                        read(f"{_ROOT}/cpu{folder}/cpu.cfs_period_us"),
                    )
                )
    return min((quota for quota in quotas if quota is not None), default=None)


def _of_v2(text: str | None) -> float | None:
    if text is None:
        return None
    # "200000 100000", or "max 100000".
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def _of_v1(quota: str | None, period: str | None) -> float | None:
    if quota is None or period is None or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
