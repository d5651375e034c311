"""Weighs codecs, each in a fresh process: peak memory, and the sizes of what they send.

`frames` writes every codec's frame of one message to a folder. `sizes` reports how large the
frames are, also compressed. `peak` takes one frame, or the native values, through one
contract and reports how far the peak of the resident set rose, and what Python's allocators
gave out at most, touched or not.

The kernel's VmHWM is read rather than `ru_maxrss`, which a process inherits through exec from
the one that started it. Where the kernel allows it, the peak is set back before.
"""

import json
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import ROUND_TRIP, timed_call
from capnp_rig.loadtest.codecs.messages import native
from capnp_rig.loadtest.stats.messages import FIXED_BYTES, Message

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_ZLIB_LEVEL, _ZSTD_LEVEL = 6, 3
# A slow compression is timed once.
_REPEATS, _COMPRESS_NS = 3, 50_000_000
_WARM_BYTES = {Message.TEXT: 64, Message.TENSOR: 64, **FIXED_BYTES}


def frame_file(folder: Path, codec: str) -> Path:
    """Return where a codec's frame lies."""
    return folder / codec.replace(" ", "-")


def _compressors() -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    yield f"zlib {_ZLIB_LEVEL}", lambda data: zlib.compress(data, _ZLIB_LEVEL)
    try:
        import zstandard
    except ModuleNotFoundError:
        return
    yield f"zstd {_ZSTD_LEVEL}", zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress


def _frames(message: Message, size_bytes: int) -> dict[str, bytes]:
    values = native(message, size_bytes)
    return {
        name: bytes(codec.messages[message].writer()(values))
        for name, codec in CODECS.items()
        if message in codec.messages
    }


def _sizes(message: Message, size_bytes: int) -> list[dict[str, Any]]:
    sizes = []
    for name, frame in _frames(message, size_bytes).items():
        # The others write the same as one of these does.
        if CODECS[name].writes and CODECS[name].reads:
            place = {"message": message, "size_bytes": size_bytes, "codec": name}
            raw = {"method": "raw", "encoded_bytes": len(frame), "compress_ns": None}
            sizes += [
                {**place, **raw},
                *({**place, **_compressed(frame, *compressor)} for compressor in _compressors()),
            ]
    return sizes


def _compressed(frame: bytes, method: str, compress: Callable[[bytes], bytes]) -> dict[str, Any]:
    times_ns: list[int] = []
    while len(times_ns) < _REPEATS and sum(times_ns) < _COMPRESS_NS:
        start_ns = time.perf_counter_ns()
        compressed = compress(frame)
        times_ns.append(time.perf_counter_ns() - start_ns)
    return {"method": method, "encoded_bytes": len(compressed), "compress_ns": median(times_ns)}


def _peak(
    name: str, message: Message, size_bytes: int, contract: str, folder: Path
) -> dict[str, Any]:
    codec = CODECS[name].messages[message]
    # What is loaded, cached or grown at the first use is not the message's.
    small = native(message, _WARM_BYTES[message])
    timed_call(codec, contract, small, codec.writer()(small))()
    if contract == ROUND_TRIP:
        call = timed_call(codec, contract, native(message, size_bytes), b"")
    else:
        frame = frame_file(folder, name).read_bytes()
        call = timed_call(codec, contract, None, frame)
    rss_bytes = _peak_rise(call)
    tracemalloc.start()
    call()
    python_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "codec": name,
        "message": message,
        "size_bytes": size_bytes,
        "contract": contract,
        "rss_bytes": rss_bytes,
        "python_bytes": python_bytes,
    }


def _peak_rise(call: Callable[[], Any]) -> int | None:
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    before = _peak_bytes()
    call()
    after = _peak_bytes()
    return None if before is None or after is None else after - before


def _peak_bytes() -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)


def main(arguments: list[str]) -> None:
    """Do what the arguments say and print one JSON value."""
    what, message, size_bytes, *more = arguments
    place = (Message(message), int(size_bytes))
    weights: Any = None
    if what == "frames":
        (folder,) = more
        for name, frame in _frames(*place).items():
            frame_file(Path(folder), name).write_bytes(frame)
    elif what == "sizes":
        weights = _sizes(*place)
    else:
        folder, codec, contract = more
        weights = _peak(codec, *place, contract, Path(folder))
    sys.stdout.write(json.dumps(weights) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
