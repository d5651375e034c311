"""Whether `loadtest compare` finds a slowdown of a known size, and none where there is none.

``python -m capnp_rig.loadtest.benchmarks.ab_power [--trials 10] [--max-time 3m]``

A first A/A tells what a call costs the server. Then, in turn, it compares a server with itself,
with one that spins 5 % of that longer per call, and with one that spins 300 ns longer. Prints a
line per comparison and, at the end, a JSON object with the verdicts of each. Ten trials take an
hour and a half at most.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

import click

from capnp_rig.loadtest.ab.judging import SERVER_CPU
from capnp_rig.loadtest.engine.child_process import child_environment, module_command

_SERVICE = "capnp_rig.loadtest.benchmarks.spinning_service:Spinning"
_SHARE, _SPIN_NS = 0.05, 300.0


def server_command(spin_ns: float) -> str:
    """Return the command of a server that spins so many ns per call."""
    server = module_command("capnp_rig.server", "run", "127.0.0.1:0", "--service", _SERVICE)
    return " ".join(["env", f"SPIN_NS={spin_ns:.0f}", *server, "--log-level", "error"])


def compared(spin_ns: float, seed: int, max_time: str) -> dict[str, Any]:
    """Return the row of the server's CPU per call of a comparison."""
    with tempfile.TemporaryDirectory() as results:
        command = module_command(
            "capnp_rig.loadtest",
            "compare",
            *("--a", server_command(0), "--b", server_command(spin_ns)),
            *("--max-time", max_time, "--seed", f"{seed}", "--results", results, "--json"),
        )
        done = subprocess.run(  # noqa: S603 - a command of our own
            command, env=child_environment(), capture_output=True, text=True, check=False
        )
    if not done.stdout:
        sys.exit(done.stderr)
    comparison = json.loads(done.stdout)
    row = next(row for row in comparison["rows"] if row["metric"] == SERVER_CPU)
    return {**row, "exit_status": done.returncode}


def _line(name: str, seed: int, row: dict[str, Any]) -> str:
    shown = {name: row[name] for name in ("ratio", "low", "high", "floor", "n")}
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
    return f"{name}, {seed}: {row['verdict']} (exit {row['exit_status']}), {numbers}"


@click.command()
@click.option("--trials", type=click.IntRange(1, 1000), default=10)
@click.option("--max-time", default="3m")
def main(*, trials: int, max_time: str) -> None:
    """Compare servers of known difference, and print what came out."""
    base_us = compared(0, 0, max_time)["baseline"]
    planted_ns = {"A/A": 0.0, "+5 %": base_us * 1000 * _SHARE, "+300 ns": _SPIN_NS}
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in planted_ns}
    for seed in range(1, trials + 1):
        for name, spin_ns in planted_ns.items():
            row = compared(spin_ns, seed, max_time)
            verdicts[name][row["verdict"]] += 1
            click.echo(_line(f"{name} ({spin_ns:.0f} ns)", seed, row))
    click.echo(json.dumps({"server_cpu_us_per_call": base_us, "verdicts": verdicts}, indent=1))


if __name__ == "__main__":
    main()
