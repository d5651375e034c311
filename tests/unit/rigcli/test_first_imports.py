import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


MODULES = [
    "capnp_rig",
    *(f"capnp_rig.{name}.__main__" for name in ("client", "loadtest", "server")),
]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_slow_is_imported_before_ctrl_c_is_quiet(module: str) -> None:
    # -S: an editable install imports something of its own.
    script = f"import {module}, sys; print('typing' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
