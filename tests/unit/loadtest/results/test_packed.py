from pathlib import Path

import pytest

from capnp_rig.loadtest.results import (
    ResultError,
    read_run,
    read_samples,
    run_document,
    run_file,
)
from capnp_rig.loadtest.results.load_samples import read_result
from capnp_rig.loadtest.results.packed import pack
from capnp_rig.loadtest.results.writing import write_run, write_samples

# Numbers that compress badly.
SAMPLES = [{"sample": number, "value": str(pow(3, number, 10**40))} for number in range(400)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path, run_document("bench", {}, {}, [], started="now"))
    write_samples(tmp_path, SAMPLES)
    return tmp_path


@pytest.mark.parametrize(("max_bytes", "parts"), [(450_000, 1), (3_000, 4)])
def test_a_packed_result_reads_as_before(folder: Path, max_bytes: int, parts: int) -> None:
    document = read_run(folder)
    pack(folder, max_bytes)
    assert (read_run(folder), read_samples(folder)) == (document, SAMPLES)
    names = sorted(file.name for file in folder.iterdir())
    assert names == [
        "run.json.xz",
        *sorted(f"samples-{number:02}.jsonl.xz" for number in range(1, parts + 1)),
    ]
    assert all(file.stat().st_size <= max_bytes for file in folder.iterdir())


def test_a_damaged_part_is_named(folder: Path) -> None:
    pack(folder)
    run_file(folder).write_bytes(b"no xz at all")
    with pytest.raises(ResultError, match=r"run\.json\.xz is damaged"):
        read_result(folder)
