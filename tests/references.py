"""The reference results: those that the README names."""

import json
import re

from running_rig import ROOT

_README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCES = [
    ROOT / "results" / name
    for name in dict.fromkeys(re.findall(r"results/(\d{8}T\d{6}Z-\w+)", _README))
]
KINDS = {
    folder: json.loads((folder / "run.json").read_text(encoding="utf-8"))["kind"]
    for folder in REFERENCES
}
