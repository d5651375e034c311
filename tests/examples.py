"""The examples of a Markdown page, and how each is run or why not (no I/O).

A fenced block is an example by its language:

- ``console``: lines that start with ``$`` are commands, the lines below each are what it prints;
- ``sh``: every line is a command;
- ``python``: a script; ``print(...)  # text`` says what it prints;
- any block with a title (``title="shout.py"``) is a file that the examples below it use.

A comment right above a block, ``<!-- example: MARK -->``, says what is special about it:

- ``output varies``: what it prints is not compared;
- ``exit 3`` or ``exit 0 3 4``: the exit status that it has, or one of them;
- ``another machine``, ``takes 18 minutes`` or a file that runs it, such as
  ``tests/integration/test_search.py``: it is not run here. More words may follow.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RUNNABLE = ("console", "sh", "python")
# Shown only: what a command printed, a diagram, a part of a file.
SHOWN = ("text", "mermaid")
_MARK = re.compile(r"<!-- example: (?P<mark>.*?) -->")
_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?$")
_SKIPPED = re.compile(r"another machine|takes |(?P<file>\.ci/run|tests/\S+\.py)")
_EXIT = re.compile(r"exit(?P<statuses>(?: \d+)+)")
_NUMBER = re.compile(r"\d[\d,.:]*")
# Rules and cells of tables are as wide as their numbers.
_RULES = re.compile(r"[\s\u2500-\u257f]+")
ANYTHING = "..."


class BadExample(Exception):
    """A block that is neither run nor marked; the message says where and why."""


@dataclass(frozen=True)
class Mark:
    """What is special about an example."""

    varies: bool = False
    statuses: tuple[int, ...] = (0,)
    is_skipped: bool = False
    file: str | None = None


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, what it is, and its lines without their indent."""

    line: int
    language: str
    title: str | None
    mark: Mark
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass(frozen=True)
class Command:
    """A command line, and the lines that it is said to print."""

    line: str
    output: tuple[str, ...] = ()


def read_mark(words: str) -> Mark:
    """Return the mark that a comment says."""
    skipped = _SKIPPED.match(words)
    if skipped is not None:
        return Mark(is_skipped=True, file=skipped["file"])
    status = _EXIT.search(words)
    rest = words.replace("output varies", "").replace(status[0] if status else "", "")
    if rest.strip(" ,"):
        raise BadExample(f"a mark that says nothing: {words!r}")
    statuses = tuple(map(int, status["statuses"].split())) if status else (0,)
    return Mark("output varies" in words, statuses)


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = iter(enumerate(page.splitlines(), 1))
    mark = Mark()
    for number, line in lines:
        comment = _MARK.fullmatch(line.strip())
        fence = _FENCE.fullmatch(line)
        if comment is not None:
            mark = read_mark(comment["mark"])
        elif fence is not None:
            indent = len(fence["indent"])
            body = []
            for _, inner in lines:
                if inner.strip() == "```":
                    break
                body.append(inner[indent:])
            yield Block(number, fence["language"], fence["title"], mark, tuple(body))
            mark = Mark()
        elif line.strip().startswith("```"):
            raise BadExample(f"line {number}: {line.strip()!r} is no fence that is known here")


def check(block: Block) -> None:
    """Raise `BadExample` for a block that no runner would notice."""
    if block.title is None and block.language not in RUNNABLE + SHOWN:
        raise BadExample(f"line {block.line}: a block of {block.language or 'no language'!r}")
    if block.language == "console" and not block.lines[0].startswith("$ "):
        raise BadExample(f"line {block.line}: it does not start with a command")


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a ``console`` or ``sh`` block."""
    commands: list[Command] = []
    continues = False
    for line in block.lines:
        if continues:
            commands[-1] = Command(f"{commands[-1].line}\n{line}")
        elif block.language == "sh":
            commands.extend([Command(line)] if line and not line.startswith("#") else [])
        elif line.startswith("$ "):
            commands.append(Command(line.removeprefix("$ ")))
        else:
            commands[-1] = Command(commands[-1].line, (*commands[-1].output, line))
            continue
        continues = line.endswith("\\")
    return commands


def printed_by(script: str) -> list[str]:
    """Return the lines that a script is said to print."""
    return re.findall(r"^ *print\(.*\)  # (.*)$", script, re.MULTILINE)


def agrees(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Tell whether what a page shows is what was printed, numbers and the widths of tables aside.

    A line of three dots stands for any lines.
    """
    parts = _split(_shape(shown))
    rest = _shape(printed)
    if len(parts) == 1:
        return parts[0] == rest
    first, *middle, last = parts
    if rest[: len(first)] != first:
        return False
    rest = rest[len(first) :]
    for part in middle:
        starts = (at for at in range(len(rest)) if rest[at : at + len(part)] == part)
        at = next(starts, None)
        if at is None:
            return False
        rest = rest[at + len(part) :]
    return len(rest) >= len(last) and rest[len(rest) - len(last) :] == last


def _split(lines: Sequence[str]) -> list[list[str]]:
    """Return the lines between those that stand for any lines."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line == ANYTHING:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts


def _shape(lines: Sequence[str]) -> list[str]:
    shapes = (_NUMBER.sub("#", _RULES.sub(" ", line)).strip() for line in lines)
    return [shape for shape in shapes if shape]


def documents(root: Path) -> list[Path]:
    """Return the pages of the project whose examples are run."""
    pages = [root / "README.md", root / "CONTRIBUTING.md", root / "results" / "README.md"]
    return [*pages, *sorted((root / "docs").rglob("*.md"))]
