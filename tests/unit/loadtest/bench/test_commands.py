from pathlib import Path

import pytest

from capnp_rig.loadtest.bench.commands import json_output
from capnp_rig.loadtest.bench.rounds import BenchError
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
    ("printed", "line"), [("", "it printed nothing"), ("\n", "it printed nothing"), ("a\nb\n", "b")]
)
def test_the_last_line_of_a_log(tmp_path: Path, printed: str, line: str) -> None:
    (tmp_path / "log").write_text(printed)
    assert last_line(tmp_path / "log") == line
