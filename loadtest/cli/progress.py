"""The progress of a measurement on stderr: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from capnp_rig.loadtest.engine.progress import Progress, Rhythm, ShowProgress


@contextmanager
def shown_progress(rhythm: Rhythm) -> Iterator[ShowProgress]:
    """Yield the function to call with each `Progress`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        write = partial(console.print, highlight=False, markup=False, soft_wrap=True)
        yield _Lines(write, rhythm).show
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda progress: bar.update(
            task, completed=progress.done, total=progress.total, description=progress.text
        )


class _Lines:
    """Prints lines in a rhythm."""

    def __init__(
        self,
        say: Callable[[str], None],
        rhythm: Rhythm,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._rhythm, self._now_s = say, rhythm, now_s
        self._next_s = now_s() + rhythm.first_s
        self._has_begun = not rhythm.first_s

    def show(self, progress: Progress) -> None:
        now_s = self._now_s()
        is_last = self._has_begun and progress.done >= progress.total
        if now_s < self._next_s and not is_last:
            return
        self._has_begun = True
        self._next_s = now_s + self._rhythm.every_s
        self._say(progress.text)
