"""The progress of a measurement on stderr: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from capnp_rig.loadtest.engine.progress import Progress, ShowProgress

# Steps of milliseconds would fill a log.
_LINE_EVERY_S = 5.0


@contextmanager
def shown_progress(*, in_lines: bool = True) -> Iterator[ShowProgress]:
    """Yield the function to call with each `Progress`.

    Without `in_lines` the bar goes when all is done, and what is no terminal gets nothing.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(lambda text: console.print(text, highlight=False, markup=False))
        yield lines.show if in_lines else lambda _progress: None
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=console, transient=not in_lines) as bar:
        task = bar.add_task("", total=None)
        yield lambda progress: bar.update(
            task, completed=progress.done, total=progress.total, description=progress.text
        )


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
        self._say(progress.text)
