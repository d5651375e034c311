import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from capnp_rig.loadtest.results import (
    Figure,
    ResultError,
    folder_name,
    make_folder,
    read_run,
    read_samples,
    record,
    run_document,
    write_run,
    write_samples,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_the_environment_is_plain_and_complete() -> None:
    facts = record.environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["libcapnp"].count(".") == 2
    assert facts["packages"]["pycapnp"][0].isdigit()
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


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert record.commit() == "unknown"


def test_what_cannot_be_read_says_so() -> None:
    assert record._read("/no/such/file") == "not readable"


def test_a_run_survives_its_file(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "results", folder_name(NOW, "abc"))
    assert folder.name == "20260102T030405Z-abc"
    figure = Figure("rate", 1.5, "calls/s", "round trip", 3)
    write_run(folder, run_document("demo", {"a": 1}, {"b": 2}, [figure], more=3))
    document = read_run(folder)
    assert document["figures"][0]["value"] == 1.5
    assert (document["config"], document["more"]) == ({"a": 1}, 3)


def test_two_runs_in_one_second_get_two_folders(tmp_path: Path) -> None:
    assert make_folder(tmp_path, "a").name == "a"
    assert make_folder(tmp_path, "a").name == "a-2"


@pytest.mark.parametrize("change", [{"version": "2.0"}, {"format": "other"}])
def test_an_unknown_major_version_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    write_run(tmp_path, run_document("demo", {}, {}, []) | change)
    with pytest.raises(ResultError, match=r"version 1\.0"):
        read_run(tmp_path)


def test_samples_survive_their_file(tmp_path: Path) -> None:
    write_samples(tmp_path, [{"a": 1}, {"a": 2}])
    assert read_samples(tmp_path) == [{"a": 1}, {"a": 2}]
