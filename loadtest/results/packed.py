"""A result in its compact form, which reference runs have in git: xz, in files of 450 kB at most.

    python -m capnp_rig.loadtest.results.packed FOLDER...

``run.json`` becomes ``run.json.xz``, and ``samples.jsonl.gz`` becomes ``samples-01.jsonl.xz`` and
so on, line by line the same. `read_run` and `read_samples` read either form.
"""

import gzip
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path

from capnp_rig.loadtest.results import RUN_FILE, SAMPLES_FILE

MAX_FILE_BYTES = 450_000


def pack(folder: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Replace a result's ``run.json`` and samples by their compact form.

    Raises:
        OSError: There are none, or they cannot be replaced.
    """
    run = folder / RUN_FILE
    _replace(run, {f"{RUN_FILE}.xz": run.read_bytes()})
    samples = folder / SAMPLES_FILE
    with gzip.open(samples) as stream:
        parts = _split(list(stream), max_bytes)
    names = (f"samples-{number:02}.jsonl.xz" for number in range(1, len(parts) + 1))
    _replace(samples, dict(zip(names, parts, strict=True)))


def _split(lines: Sequence[bytes], max_bytes: int) -> list[bytes]:
    """Return the lines in as few parts of one size as keep each within `max_bytes`, compressed."""
    count = -(-len(_compress(b"".join(lines))) // max_bytes)
    while True:
        size = max(len(lines) // count, 1)
        parts = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
        if size == 1 or all(len(_compress(part)) <= max_bytes for part in parts):
            return parts
        count += 1


def _replace(file: Path, parts: dict[str, bytes]) -> None:
    for name, content in parts.items():
        (file.parent / name).write_bytes(_compress(content))
    file.unlink()


def _compress(content: bytes) -> bytes:
    return lzma.compress(content, preset=9)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        pack(Path(argument))
