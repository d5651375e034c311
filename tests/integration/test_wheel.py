"""The built wheel works on its own: an empty venv, another folder, the real commands."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running_server import ROOT, Lines


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands in a venv that has the wheel and PyPI's `schema`, no more."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building in the tree would leave folders in it.
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        source, target = ROOT / name, folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_file():
            target.write_bytes(source.read_bytes())
    # Without a pip of its own, and nothing compiled that is never imported: half of the time.
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python")
    # A folder is built into a wheel, and that is installed.
    run(*pip, "install", "-q", "--no-compile", folder / "tree", "schema", cwd=folder)
    return folder / "venv" / "bin"


@pytest.mark.timeout(600)
def test_server_and_client_work_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [installed / "server", "run", "127.0.0.1:0"], cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    lines = Lines(os.dup(server.stdout.fileno()))
    try:
        (line,) = lines.wait_for("Listening on ", within_s=40)
        address = line.split()[2]
        assert run(installed / "client", "send", address, "Hello", cwd=tmp_path) == "olleH\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait(5)
        server.stdout.close()
        lines.join()


@pytest.mark.timeout(600)
def test_the_wheel_brings_its_schemas_and_types(installed: Path, tmp_path: Path) -> None:
    script = (
        "import capnp_rig, pathlib\n"
        "from capnp_rig import client, loadtest, rigcli, schema, server, wire\n"
        "assert (pathlib.Path(capnp_rig.__file__).parent / 'py.typed').is_file()\n"
        "print(hex(schema.message.MessageStream.schema.node.id))"
    )
    found = run(installed / "python", "-P", "-c", script, cwd=tmp_path)
    assert found == "0x8d1fb6963814a44a\n"


@pytest.mark.timeout(600)
def test_the_wheel_stands_beside_pypis_schema(installed: Path, tmp_path: Path) -> None:
    script = (
        "import schema\n"
        "from capnp_rig.schema import message\n"
        "print(schema.Schema(int).validate(3), message.MessageStream.schema)"
    )
    found = run(installed / "python", "-P", "-c", script, cwd=tmp_path)
    assert found == "3 <schema for message.capnp:MessageStream>\n"
