"""The progress of a benchmark run on stderr: a bar on a terminal, else a line per step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from loadtest.bench import Progress


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield the function to call with each `Progress`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda progress: console.print(_line(progress), highlight=False)
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


def _line(progress: Progress) -> str:
    return f"{progress.done} of {progress.total} done, {_left(progress)}"


def _left(progress: Progress) -> str:
    return "starting" if progress.left_s is None else f"about {progress.left_s:.0f} s left"
