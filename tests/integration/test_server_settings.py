"""`server run` with settings from a file and the environment, and `server check`."""

import signal
from pathlib import Path

import pytest
from pycapnp_peer import reversed_by
from running_server import environment, run_to_end, running_server


def written(folder: Path, text: str) -> str:
    (folder / "s.toml").write_text(text)
    return "s.toml"


def test_a_server_takes_its_settings_from_file_and_environment(tmp_path: Path) -> None:
    written(tmp_path, "workers = 1\nlog-level = 'debug'\n")
    with running_server(
        *["--config", "s.toml"], cwd=tmp_path, env={"CAPNP_RIG_WORKERS": "2"}
    ) as server:
        assert reversed_by(server) == b"olleH"
        assert len(server.workers()) == 2
        server.out.wait_for("finished cleanly")


def test_a8_a9_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    written(tmp_path, "workers = 1")
    with running_server("--config", "s.toml", cwd=tmp_path) as server:
        written(tmp_path, "workers = 0")
        server.signal(signal.SIGHUP)
        server.err.wait_for(
            "Not reloaded, the workers serve on as they are: Invalid value for workers in s.toml: 0"
        )
        written(tmp_path, "workers = 2\nbacklog = 9")
        server.signal(signal.SIGHUP)
        server.out.wait_for("Reloaded: 2 new workers serve")
        assert server.err.find("A reload does not change backlog: restart the server for that")
        assert reversed_by(server) == b"olleH"


def test_check_prints_what_holds(tmp_path: Path) -> None:
    file = written(tmp_path, "address = 'unix:s'\nworkers = 3\n")
    done = run_to_end("check", file, "--backlog", "7", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ['address = "unix:s"  # s.toml', "workers = 3  # s.toml"]
    assert "backlog = 7  # command line" in lines
    assert 'stack = "capnp"  # default' in lines
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("workers = 0", 2, "Invalid value for workers in s.toml: 0 is not in the range"),
        ("adress = 'a:1'", 2, "s.toml: unknown setting 'adress': did you mean address?"),
        ("stack = 'json'\nloop = 'asyncio'\nengine = 'wire'", 2, "--engine does not go with"),
        ("address = '0.0.0.0:0'", 2, "refusing to listen on 0.0.0.0:0"),
        ("address = 'host.invalid:0'", 1, "cannot find the host of host.invalid:0"),
        ("service = 'nowhere:X'", 1, "a worker cannot start: no module named 'nowhere'"),
    ],
)
def test_check_tells_a_mistake_in_one_line(
    tmp_path: Path, text: str, status: int, words: str
) -> None:
    rest = "" if "address" in text else "\naddress = 'unix:s'"
    done = run_to_end("check", written(tmp_path, text + rest), cwd=tmp_path)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert words in line


def test_check_shows_where_a_service_fails(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Mine:\n    1 / 0\n")
    done = run_to_end("check", written(tmp_path, "service = 'mine:Mine'"), "unix:s", cwd=tmp_path)
    assert done.returncode == 1
    assert "mine.py" in done.stderr
    assert "ZeroDivisionError" in done.stderr.splitlines()[-1]


def test_no_setting_of_ours_is_in_this_environment() -> None:
    assert not [name for name in environment() if name.startswith("CAPNP_RIG_")]
