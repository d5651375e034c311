"""A service that cannot work, as its author meets it: one cause, the own traceback once."""

from pathlib import Path

import pytest
from running_server import run_to_end

BROKEN = (
    "from capnp_rig.schema import message\n\n\n"
    "def helper():\n    return {}['inner']\n\n\nhelper()\n"
)
GENERATOR = (
    "from capnp_rig.schema import message\n\n\nclass X:\n    interface = message.MessageStream\n\n"
    "    def read(self, params):\n        yield {}\n"
)


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_a3_a_traceback_of_the_users_code_is_shown_once(tmp_path: Path, engine: str) -> None:
    (tmp_path / "svc.py").write_text(BROKEN)
    result = run_to_end(
        *["run", "127.0.0.1:0", "--service", "svc:X", "--workers", "2", "--engine", engine],
        cwd=tmp_path,
    )
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    cause = f"cannot import svc: KeyError: 'inner' ({tmp_path}/svc.py, line 5)"
    assert lines[0] in {f"Worker {index} failed to start: {cause}" for index in range(2)}
    assert [line for line in lines[1:-1] if "^^^" not in line] == [
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/svc.py", line 8, in <module>',
        "    helper()",
        f'  File "{tmp_path}/svc.py", line 5, in helper',
        "    return {}['inner']",
        "KeyError: 'inner'",
    ]
    assert lines[-1] == f"Giving up after 5 failed starts: {cause}"


def test_a3_a_method_that_cannot_be_served_is_named(tmp_path: Path) -> None:
    (tmp_path / "svc.py").write_text(GENERATOR)
    result = run_to_end("run", "127.0.0.1:0", "--service", "svc:X", "--workers", "1", cwd=tmp_path)
    cause = (
        f"X.read ({tmp_path}/svc.py, line 7) cannot be served: it is a generator, which yields "
        "and returns nothing; write def, or async def and return"
    )
    assert result.stderr.splitlines() == [
        f"Worker 0 failed to start: {cause}",
        f"Giving up after 5 failed starts: {cause}",
    ]
