import json
import subprocess
from pathlib import Path

import pytest

from capnp_rig.loadtest.results import record


def test_the_environment_is_plain_and_complete() -> None:
    facts = record.environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["libcapnp"].count(".") == 2
    assert facts["packages"]["pycapnp"][0].isdigit()
    assert len(facts["constraints_sha256"]) == 64
    assert {"commit", "dirty", "python", "machine", "cgroup"} <= facts.keys()


def test_outside_a_checkout_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Installed somewhere below another project's checkout, whose commit says nothing of ours.
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        git = ["git", *identity, "-C", str(tmp_path), *arguments]
        subprocess.run(git, check=True, timeout=10)
    monkeypatch.setattr(record, "_ROOT", tmp_path / "site-packages")
    (tmp_path / "site-packages").mkdir()
    facts = record.environment()
    assert (facts["commit"], facts["dirty"]) == ("unknown", "not readable")
    assert facts["constraints_sha256"] == "not readable"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert record.commit() == "unknown"


def test_what_cannot_be_read_says_so() -> None:
    assert record._read("/no/such/file") == "not readable"
