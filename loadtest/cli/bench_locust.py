"""``loadtest bench-locust``: its options, and what it prints."""

from dataclasses import replace
from pathlib import Path

import click

from capnp_rig.loadtest.cli.terminal import failures_in_one_line, results_option, stdout
from capnp_rig.rigcli.finite_numbers import FiniteFloat

_QUICK_ROUNDS = 6


@click.command("bench-locust")
@click.option("--quick", is_flag=True, help=f"{_QUICK_ROUNDS} rounds, coarser intervals.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Rounds.  [default: 12]")
@click.option("--seconds", type=FiniteFloat(0.1, 60), default=2.0, show_default=True)
@click.option("--users", type=click.IntRange(1, 1000), default=16, show_default=True)
@results_option
def bench_locust(
    *, quick: bool, rounds: int | None, seconds: float, users: int, results: Path
) -> None:
    """Compare the Locust user with FastHttpUser, one Locust process each."""
    from capnp_rig.loadtest.bench.locust import BenchLocustConfig, BenchLocustError, run
    from capnp_rig.loadtest.cli.bench_progress import shown_progress
    from capnp_rig.loadtest.report.figures import figure_table
    from capnp_rig.loadtest.report.terminal import show

    config = BenchLocustConfig(seconds=seconds, users=users, results=results)
    count = rounds or (_QUICK_ROUNDS if quick else config.rounds)
    with failures_in_one_line(BenchLocustError), shown_progress() as report:
        result = run(replace(config, rounds=count), report)
    title = f"{count} rounds of {seconds:g} s, {users} users, 32-byte texts, closed loop"
    console = stdout()
    show(console, figure_table("figures", title, result.figures))
    console.print(f"Written to {result.folder}", soft_wrap=True)
