import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("command", ["client", "loadtest", "server"])
def test_nothing_slow_is_imported_before_ctrl_c_is_quiet(command: str) -> None:
    # -S: an editable install imports something of its own.
    script = f"import capnp_rig.{command}.__main__, sys; print('typing' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
