"""The environment in which a child process imports the very package that this one runs from."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).absolute().parents[2]


def importing(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment`, with the source tree on PYTHONPATH where only we would find it.

    An installed package, editable or not, is found by itself. A source tree that is not
    installed was found by the working directory, which a child with ``-P`` does not look at.
    """
    known = environment.get("PYTHONPATH", "")
    found_here = any(Path(path).absolute() == _ROOT for path in sys.path)
    is_installed = _ROOT.name in {"site-packages", "dist-packages"}
    if not found_here or is_installed or str(_ROOT) in known.split(os.pathsep):
        return dict(environment)
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, [known, str(_ROOT)]))}
