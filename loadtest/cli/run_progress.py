"""The progress of load runs on stderr: a bar with the rate on a terminal, nothing elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from capnp_rig.loadtest.engine.run import RunConfig
from capnp_rig.loadtest.engine.search import SearchProgress


@contextmanager
def shown_run(config: RunConfig) -> Iterator[Callable[[float, int], None]]:
    """Yield the function that takes the seconds done of a repeat, and the calls answered so far."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _seconds, _calls: None
        return
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[rate]}"))
    each = config.seconds if config.calls is None else config.calls
    assert each is not None
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=each * config.repeats, rate="")
        done = 0.0
        last_s, last_calls = time.monotonic(), 0

        def update(done_s: float, calls: int) -> None:
            nonlocal done, last_s, last_calls
            if calls < last_calls:
                # The next repeat.
                done, last_calls = done + each, 0
            bar.update(task, completed=done + (done_s if config.calls is None else calls))
            now_s = time.monotonic()
            # The engine counts twice a second.
            if calls != last_calls:
                rate = (calls - last_calls) / max(now_s - last_s, 1e-3)
                bar.update(task, rate=f"{calls:,} calls, {rate:,.0f}/s")
                last_s, last_calls = now_s, calls

        yield update


@contextmanager
def shown_search() -> Iterator[Callable[[SearchProgress], None]]:
    """Yield the function that takes what is probed next."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _progress: None
        return
    with console.status("") as status:

        def update(progress: SearchProgress) -> None:
            probe = progress.probe
            status.update(
                f"probe {progress.done + 1}, to {probe.purpose}: {probe.rate_hz:,g} calls/s; "
                f"about {progress.left_s:.0f} s to go"
            )

        yield update
