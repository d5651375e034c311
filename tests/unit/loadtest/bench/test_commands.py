import subprocess
from pathlib import Path

import psutil
import pytest

from capnp_rig.loadtest.bench.commands import json_output
from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.engine import child_process
from capnp_rig.loadtest.engine.child_process import last_line


def test_what_a_module_prints_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, 2]}')
    assert json_output("json.tool", str(file), within_s=30) == {"a": [1, 2]}


def test_a_module_that_fails_says_what_it_printed() -> None:
    with pytest.raises(BenchError, match=r"(?s)^tool /none failed:\n.*No such file"):
        json_output("json.tool", "/none", within_s=30)


def test_a_module_that_takes_too_long_is_ended() -> None:
    with pytest.raises(BenchError, match=r"^timeit .* did not end in 0\.5 s$"):
        json_output("timeit", "-n1", "-r1", "import time; time.sleep(60)", within_s=0.5)


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("", "it printed nothing"),
        ("\n", "it printed nothing"),
        ("a\nb\n", "b"),
        ("\x1b]0;a\x07\n", "\\x1b]0;a\\x07"),
        ("a" * 100_000, "a" * 1000 + "… (65,536 characters)"),
    ],
)
def test_the_last_line_of_a_log(tmp_path: Path, printed: str, line: str) -> None:
    (tmp_path / "log").write_text(printed)
    assert last_line(tmp_path / "log") == line


@pytest.mark.parametrize("then", ["", "; trap '' TERM; wait"])
def test_what_a_process_leaves_behind_ends_with_it(
    then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "_TERMINATE_S", 0.1)
    script = f"sleep 60 & echo $!{then}"
    with child_process.kept_alive(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left = psutil.Process(int(process.stdout.readline()))
    assert left.wait(5) is None
