"""Every example of README and docs is run, or says why not; `examples` has how they are marked.

A page is run from top to bottom in a folder of its own, as somebody would who follows it: files
that it shows are written, `server run` stays until the page is done, everything else runs to its
end. Loads take a second at most, whatever the page says.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from examples import Block, Command, agrees, blocks_of, check, commands_of, documents, printed_by
from running_server import ROOT, Lines

PAGES = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in documents(ROOT)}
BLOCKS = {name: list(blocks_of(page)) for name, page in PAGES.items()}
_BIN = Path(sys.executable).parent
_SERVER = re.compile(
    r"(?P<variables>(?:\w+=\S+ )*)server run (?P<address>\S+)(?P<options>.*)", re.DOTALL
)
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")
# How long loads take here; they are void where other tests run as well.
_SHORTER = {
    re.compile(r"(?<=loadtest run )"): "--allow-void --warmup 100ms ",
    re.compile(r"(?<=locust )(?=-f )"): "--allow-void ",
    re.compile(r"--duration \d+s\b"): "--duration 300ms",
    re.compile(r"-t \d+s\b"): "-t 1s",
}
_WITHIN_S = 60
# Half a minute each, of loads.
_LONG = {f"docs/guides/{name}.md" for name in ("compare", "engine", "locust")}
_INDENTED = re.compile(
    r"^ {4,}(?:\$ |\.venv/|(?:client|server|loadtest|locust|tox) ).*", re.MULTILINE
)


class Page:
    """Follows one page in `folder`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        # The port that stands for one of the page's, and what each server has said.
        self._ports: dict[str, str] = {}
        self._servers: list[tuple[tuple[str, ...], Lines]] = []

    def follow(self, block: Block) -> None:
        if block.title is not None:
            (self._folder / block.title).write_text(self._here(block.text), "utf-8")
        elif block.mark.is_skipped or block.language not in ("console", "sh", "python"):
            return
        elif block.language == "python":
            self._run_script(block)
        else:
            for command in commands_of(block):
                self._run(command, block)

    def check_servers(self) -> None:
        """Compare what the servers have said with what the page shows of it."""
        for shown, lines in self._servers:
            if shown:
                lines.wait_for(_last_words(shown))
                assert agrees([*shown, "..."], lines.lines), (shown, lines.lines)

    def _here(self, text: str) -> str:
        """Return a text of the page with the addresses and times that hold here."""
        text = _PORT.sub(lambda port: self._ports.get(port[0], port[0]), text)
        text = text.replace("unix:/tmp", f"unix:{self._folder}")
        for long, short in _SHORTER.items():
            text = long.sub(short, text)
        return text

    def _run(self, command: Command, block: Block) -> None:
        server = _SERVER.fullmatch(command.line)
        if server is not None and not block.mark.statuses[0]:
            self._serve(server["variables"], server["address"], server["options"], command)
            return
        where = f"line {block.line}: {command.line}"
        done = self._execute(["bash", "-o", "pipefail", "-c", self._here(command.line)])
        said = f"{where}\n{done.stdout}{done.stderr}"
        assert done.returncode in block.mark.statuses, said
        printed = done.stdout + (done.stderr if done.returncode else "")
        if command.output and not block.mark.varies:
            assert agrees(command.output, printed.splitlines()), f"{where}\n{printed}"

    def _run_script(self, block: Block) -> None:
        done = self._execute([sys.executable, "-c", self._here(block.text)])
        assert done.returncode in block.mark.statuses, (block.line, done)
        shown = printed_by(block.text)
        if shown and not block.mark.varies:
            assert agrees(shown, done.stdout.splitlines()), (block.line, done.stdout)

    def _execute(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self._folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )

    def _serve(self, variables: str, address: str, options: str, command: Command) -> None:
        start = ["env", *variables.split(), str(_BIN / "server"), "run"]
        start.append(_PORT.sub("0", self._here(address)))
        process = self._stack.enter_context(
            _background([*start, *shlex.split(self._here(options))], self._folder)
        )
        assert process.stdout is not None
        lines = Lines(os.dup(process.stdout.fileno()))
        listening = lines.wait_for("Listening on ")[0]
        port, ours = _PORT.search(address), _PORT.search(listening)
        if port is not None and ours is not None:
            self._ports[port[0]] = ours[0]
        self._servers.append((command.output, lines))


@contextmanager
def _background(command: list[str], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(_WITHIN_S)


def _environment() -> dict[str, str]:
    # With pictures; see conftest.py.
    not_ours = re.compile("PYTEST_XDIST|PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not not_ours.match(name)}
    return {**kept, "PATH": f"{_BIN}:{os.environ['PATH']}", "COLUMNS": "100"}


def _last_words(shown: tuple[str, ...]) -> str:
    """Return the end of the last line that a server is said to print: words without a number."""
    return re.split(r"\d[\d,.:]*", shown[-1])[-1]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: a Unix socket's path has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="page-") as name:
        (Path(name) / "loadtest").symlink_to(ROOT / "loadtest")
        (Path(name) / "schema").symlink_to(ROOT / "schema")
        yield Path(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] if name in _LONG else [])
        for name, blocks in BLOCKS.items()
        if blocks
    ],
)
def test_the_examples_of_a_page_do_what_it_says(name: str, folder: Path) -> None:
    with ExitStack() as stack:
        page = Page(folder, stack)
        for block in BLOCKS[name]:
            page.follow(block)
        page.check_servers()


@pytest.mark.parametrize("name", BLOCKS)
def test_no_example_is_hidden_from_the_runner(name: str) -> None:
    for block in BLOCKS[name]:
        check(block)
        assert block.mark.file is None or (ROOT / block.mark.file).is_file(), block
    outside = re.sub(r"^( *)```.*?^\1```$", "", PAGES[name], flags=re.DOTALL | re.MULTILINE)
    assert _INDENTED.findall(outside) == []


def test_the_readme_and_ci_run_the_same_command() -> None:
    last = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1]
    assert last in PAGES["README.md"]
