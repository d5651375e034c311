"""The progress of a benchmark run on stderr: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from capnp_rig.loadtest.bench.steps import Progress

# Steps of milliseconds would fill a log.
_LINE_EVERY_S = 5.0


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield the function to call with each `Progress`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(lambda text: console.print(text, highlight=False)).show
        return
    columns = (
        TextColumn("measured"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=None, left="")

        def update(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, left=_left(progress))

        yield update


class _Lines:
    """Prints the first progress, the last, and one every few seconds in between."""

    def __init__(
        self, say: Callable[[str], None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._now_s = say, now_s
        self._next_s = now_s()

    def show(self, progress: Progress) -> None:
        now_s = self._now_s()
        if now_s < self._next_s and progress.done < progress.total:
            return
        self._next_s = now_s + _LINE_EVERY_S
        self._say(f"{progress.done} of {progress.total} done, {_left(progress)}")


def _left(progress: Progress) -> str:
    if progress.left_s is None:
        return "starting"
    minutes, seconds = divmod(round(progress.left_s), 60)
    return f"about {minutes} min {seconds:02d} s left" if minutes else f"about {seconds} s left"
