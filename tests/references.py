"""The reference results: those that `results/README.md` names."""

import re
from typing import Any

import pytest
from running_rig import ROOT

from capnp_rig.loadtest.results import read_run

_README = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
REFERENCES = [
    ROOT / "results" / name
    for name in dict.fromkeys(re.findall(r"results/(\d{8}T\d{6}Z-\w+)", _README))
]
KINDS = {folder: read_run(folder)["kind"] for folder in REFERENCES}
# Their thousands of samples take seconds to read, and more to draw.
_LARGE = {"bench", "bench-stacks"}


def each_reference() -> list[Any]:
    """Return the references as parameters of a test; the large ones are for the night."""
    return [
        pytest.param(folder, id=folder.name, marks=[pytest.mark.nightly] if kind in _LARGE else [])
        for folder, kind in KINDS.items()
    ]
