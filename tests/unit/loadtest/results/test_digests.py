"""Results that were cut, mixed up or edited after the run: each is told from a whole one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sample_runs import Fake, make_run

from capnp_rig.loadtest.results import (
    RUN_FILE,
    SAMPLES_FILE,
    ResultError,
    check_samples,
    read_run,
    sample_files,
)
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.packed import pack
from capnp_rig.loadtest.results.writing import Origin, write_result

ORIGIN = Origin(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"commit": "abc"})


def write(folder: Path, seed: int = 1) -> Path:
    """Write a load run as the command does."""
    run = make_run(Fake(seconds=2, calls=20, seed=seed))
    made = {"config", "environment", "figures", "started", "kind", "format", "version"}
    more = {name: value for name, value in run.document.items() if name not in made}
    samples = list(run.samples)
    written = write_result(
        "run", ORIGIN, folder, config=run.document["config"], figures=[], samples=samples, **more
    )
    assert written.problem is None
    return folder


def edit(folder: Path, change: dict[str, Any]) -> None:
    """Change a document as a text editor would."""
    file = folder / RUN_FILE
    document = json.loads(file.read_text())
    document["summary"] |= change
    file.write_text(json.dumps(document, indent=4))


def test_a_whole_result_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    assert read_result(folder).load.summary().calls > 0
    # Its layout is no matter.
    edit(folder, {})
    assert read_result(folder).samples is not None


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("name", [RUN_FILE, SAMPLES_FILE])
def test_a_file_that_is_cut_is_told(tmp_path: Path, name: str, share: float) -> None:
    file = write(tmp_path / "a") / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ResultError, match=name) as told:
        read_result(tmp_path / "a")
    assert len(str(told.value).splitlines()) == 1


def test_samples_of_another_run_are_told(tmp_path: Path) -> None:
    here, other = write(tmp_path / "a"), write(tmp_path / "b", seed=2)
    (other / SAMPLES_FILE).replace(here / SAMPLES_FILE)
    for read in (read_result, lambda folder: check_samples(folder, read_run(folder))):
        with pytest.raises(ResultError, match=f"{SAMPLES_FILE} does not belong to run.json"):
            read(here)


def test_samples_that_are_gone_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / SAMPLES_FILE).unlink()
    with pytest.raises(ResultError, match=f"{SAMPLES_FILE} is missing"):
        read_result(folder)


@pytest.mark.parametrize("change", [{"calls": 1}, {"verdict": "valid", "note": ""}])
def test_an_edited_summary_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write(tmp_path / "a")
    edit(folder, change)
    with pytest.raises(ResultError, match=r"run\.json was changed after the run"):
        read_result(folder)


def test_a_packed_result_is_checked_as_well(tmp_path: Path) -> None:
    here, other = write(tmp_path / "a"), write(tmp_path / "b", seed=2)
    for folder in (here, other):
        pack(folder, 1000)
        read_result(folder)
    parts = sample_files(here)
    assert len(parts) > 1
    parts[-1].unlink()
    with pytest.raises(ResultError, match="its digest is another"):
        read_result(here)
    (other / f"{RUN_FILE}.xz").replace(here / f"{RUN_FILE}.xz")
    with pytest.raises(ResultError, match="its digest is another"):
        read_result(here)


def test_a_result_of_an_earlier_version_has_no_digest(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    document = json.loads((folder / RUN_FILE).read_text())
    del document["digest"]
    (folder / RUN_FILE).write_text(json.dumps(document))
    assert read_result(folder).samples is not None
