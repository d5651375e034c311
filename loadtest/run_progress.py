"""The progress of a load run on stderr: a bar with the rate on a terminal, nothing elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def shown_run(seconds: float) -> Iterator[Callable[[float, int], None]]:
    """Yield the function that takes the seconds done and the calls answered so far."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _seconds, _calls: None
        return
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=seconds, rate="")
        last_s, last_calls = time.monotonic(), 0

        def update(done_s: float, calls: int) -> None:
            nonlocal last_s, last_calls
            bar.update(task, completed=done_s)
            now_s = time.monotonic()
            # The engine counts twice a second.
            if calls != last_calls:
                rate = (calls - last_calls) / max(now_s - last_s, 1e-3)
                bar.update(task, rate=f"{calls:,} calls, {rate:,.0f}/s")
                last_s, last_calls = now_s, calls

        yield update
