"""`client stubs`, and what mypy says of code that uses what it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import capnp
import pytest
from command_line import RunCommand, runner
from running_rig import ROOT

from capnp_rig.client.cli import cli

DATA = ROOT / "tests" / "data"
# As a project has it, without modules that no type of a call comes from: with them it takes 20 s.
SKIPPED = """\
numpy.*, capnp_rig.loadtest.*, capnp_rig.server.*, capnp_rig.objects.session,\
capnp_rig.wire.encoding.columns, capnp_rig.wire.encoding.structs, capnp_rig.wire.rpc.connection"""
CONFIG = f"""\
[mypy]
strict = true
enable_error_code = unused-coroutine
[mypy-capnp.*,uvloop.*]
ignore_missing_imports = true
[mypy-capnp_rig.*]
follow_imports = silent
[mypy-{SKIPPED.replace(" ", "")}]
follow_imports = skip
"""
ERROR = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+): error: .*\[(?P<kind>\S+)\]$", re.MULTILINE)
MISTAKE = re.compile(r"# error: (\S+)")


@pytest.fixture
def client(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    return runner(cli, "client", capsys, monkeypatch)


def check(folder: Path, *files: str) -> str:
    pytest.importorskip("mypy")
    (folder / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-P", "-m", "mypy", "--config-file", "mypy.ini"]
    done = subprocess.run(
        [*command, "--cache-dir", "/dev/null", *files],
        cwd=folder,
        # mypy follows no editable install whose finder is code.
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert not done.stderr
    return done.stdout


def test_a_checker_knows_methods_params_and_results(tmp_path: Path, client: RunCommand) -> None:
    status, stubs, said = client("stubs", str(DATA / "typed.capnp"))
    assert (status, said) == (0, "")
    (tmp_path / "typed_stubs.pyi").write_text(stubs)
    uses = (DATA / "typed_uses.py").read_text()
    (tmp_path / "typed_uses.py").write_text(uses)
    output = check(tmp_path, "typed_stubs.pyi", "typed_uses.py")
    errors = {(each["file"], int(each["line"]), each["kind"]) for each in ERROR.finditer(output)}
    mistakes = {
        ("typed_uses.py", number, mistake[1])
        for number, line in enumerate(uses.splitlines(), 1)
        if (mistake := MISTAKE.search(line))
    }
    assert len(mistakes) > 20
    assert errors == mistakes, output


@pytest.mark.nightly
def test_the_stubs_of_every_schema_are_without_a_mistake(
    tmp_path: Path, client: RunCommand
) -> None:
    shipped = Path(capnp.__file__).parent
    folders = (DATA, ROOT / "schema", shipped)
    schemas = [path for folder in folders for path in sorted(folder.glob("*.capnp"))]
    files = []
    for number, path in enumerate(schemas):
        status, stubs, said = client("stubs", str(path), "-I", str(shipped.parent))
        assert (status, said) == (0, ""), path
        files.append(f"stubs_{number}.pyi")
        (tmp_path / files[-1]).write_text(stubs)
    assert len(files) > 20
    assert check(tmp_path, *files).startswith("Success")


def test_a_mistake_is_a_line_and_status_2(tmp_path: Path, client: RunCommand) -> None:
    lost = '@0xb7c2f1d94e6a8036;\nusing Lost = import "/not/there.capnp";\n'
    (tmp_path / "lost.capnp").write_text(lost)
    (tmp_path / "text.txt").write_text("no schema")
    for args, reason in (
        (["nowhere.capnp"], "no schema file at nowhere.capnp"),
        ([str(tmp_path / "text.txt")], "its name does not end in .capnp"),
        ([str(tmp_path / "lost.capnp")], "Import failed: /not/there.capnp"),
        ([str(tmp_path / "lost.capnp"), "-I", "/nowhere"], "no folder at /nowhere"),
        ([], "Missing argument 'FILE'"),
    ):
        status, output, said = client("stubs", *args)
        assert (status, output, said.count("\n")) == (2, "", 1)
        assert said.startswith("client: ")
        assert reason in said


def test_a_copy_of_the_tutorials_schema_has_stubs(tmp_path: Path, client: RunCommand) -> None:
    copy = tmp_path / "mine.capnp"
    copy.write_bytes((ROOT / "schema" / "message.capnp").read_bytes())
    status, stubs, said = client("stubs", str(copy))
    assert (status, said) == (0, "")
    assert stubs.startswith("# Stubs of mine.capnp, ")
    assert "class MessageStream:" in stubs
