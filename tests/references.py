"""The reference results: those that `results/README.md` names."""

import re

from running_rig import ROOT

from capnp_rig.loadtest.results import read_run

_README = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
REFERENCES = [
    ROOT / "results" / name
    for name in dict.fromkeys(re.findall(r"results/(\d{8}T\d{6}Z-\w+)", _README))
]
KINDS = {folder: read_run(folder)["kind"] for folder in REFERENCES}
