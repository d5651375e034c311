"""Where and with what a run was made: code, versions, machine. "not readable" is a value."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

NOT_READABLE, NOT_INSTALLED = "not readable", "not installed"
UNKNOWN_COMMIT = "unknown"
_ROOT = Path(__file__).resolve().parents[2]
_GIT_TIMEOUT_S = 5.0
_PACKAGES = (
    "capnp-rig",
    "pycapnp",
    "uvloop",
    "gevent",
    "locust",
    "orjson",
    "pytest",
    "pytest-benchmark",
    "psutil",
)


def environment() -> dict[str, Any]:
    """Return the facts that a result records, as plain values."""
    return {
        "commit": commit(),
        "dirty": _dirty(),
        # Without the folder: where somebody keeps their programs is nobody's business.
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "packages": {name: version(name) for name in _PACKAGES},
        "constraints_sha256": _or_not_readable(_constraints_hash),
        "libcapnp": _or_not_readable(_libcapnp),
        "platform": platform.platform(),
        "machine": _machine(),
        "cgroup": _cgroup_limits(),
    }


def commit() -> str:
    """Return the short id of the checkout's commit, or ``unknown`` outside one."""
    return _git("rev-parse", "--short=10", "HEAD") or UNKNOWN_COMMIT


def _dirty() -> bool | str:
    status = _git("status", "--porcelain")
    return NOT_READABLE if status is None else bool(status)


def _git(*arguments: str) -> str | None:
    # A checkout has its own .git; one that merely lies above an installed copy says nothing of it.
    if not (_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", "-C", str(_ROOT), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def version(package: str) -> str:
    """Return the version of an installed package, or ``not installed``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _constraints_hash() -> str:
    """Return what says which versions CI tested: the hash of the checkout's constraints."""
    return sha256((_ROOT / "constraints.txt").read_bytes()).hexdigest()


def _libcapnp() -> str:
    from capnp.lib import capnp

    number = int(capnp._CAPNP_VERSION)  # noqa: SLF001 - its public twin is a C macro
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _or_not_readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, AttributeError, ValueError, ImportError, psutil.Error):
        return NOT_READABLE


def _machine() -> dict[str, Any]:
    return {
        "cpu_model": _or_not_readable(_cpu_model),
        "cpus": os.cpu_count(),
        "affinity": _or_not_readable(lambda: sorted(os.sched_getaffinity(0))),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "no_turbo": _read("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "smt": _read("/sys/devices/system/cpu/smt/active"),
        "numa_nodes": _read("/sys/devices/system/node/online"),
        "memory_bytes": _or_not_readable(lambda: psutil.virtual_memory().total),
        "load_1m": _or_not_readable(lambda: os.getloadavg()[0]),
        "steal_s": _or_not_readable(lambda: psutil.cpu_times().steal),
        "clock_source": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def _cpu_model() -> str:
    return next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
        if line.startswith("model name")
    )


def _cgroup_limits() -> dict[str, str]:
    folder = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").split("::", 1)[1].strip()
        folder /= own.lstrip("/")
    except (OSError, IndexError):
        pass
    return {name: _read(str(folder / name)) for name in ("cpu.max", "memory.max", "cpuset.cpus")}


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return NOT_READABLE
