"""The C++ implementation as both sides: `peer.cpp`, built where there is a compiler."""

import shutil
import subprocess
import threading
from pathlib import Path

from proxy import HELD, Proxy

_HERE = Path(__file__).resolve().parent
_LIBRARIES = ["-lcapnp-rpc", "-lcapnp", "-lkj-async", "-lkj"]
# Where Debian has the files that schemas import.
_INCLUDE = Path("/usr/include")
_BUILD_S = 300.0
_PLAY_S = 20.0


def missing() -> str | None:
    """Return why `peer.cpp` cannot be built here, or None."""
    for tool in ("capnp", "capnpc-c++", "g++"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not (_INCLUDE / "capnp/rpc-twoparty.h").exists():
        return "libcapnp-dev is not installed"
    return None


def build(folder: Path) -> Path:
    """Build the program in a folder; return it."""
    schema = shutil.copy(_HERE.parent / "data" / "scenarios.capnp", folder)
    program = folder / "peer"
    compile_schema = ["capnp", "compile", "-oc++", f"-I{_INCLUDE}", schema]
    # Without optimization: building takes longer than all that it does.
    compile_program = ["g++", "-std=c++17", "-w", "-I.", _HERE / "peer.cpp", "scenarios.capnp.c++"]
    for command in (compile_schema, [*compile_program, "-o", program, *_LIBRARIES]):
        subprocess.run(command, cwd=folder, check=True, timeout=_BUILD_S)
    return program


def played(program: Path, name: str, link: Proxy) -> str:
    """Return what the program sees in a scenario, as a client over a link."""
    lines = []
    with subprocess.Popen(
        [program, str(link.port), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(_PLAY_S, process.kill)
        timer.start()
        for line in process.stdout:
            if line.startswith("!"):
                link.upstream = [HELD] if line == "!hold\n" else []
                process.stdin.write("\n")
                process.stdin.flush()
            else:
                lines.append(line)
        timer.cancel()
    return "".join(lines).removesuffix("\n")
