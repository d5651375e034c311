"""The stacks by name, and the libraries that they need.

To add one: write a module with a `Stream` such as `echo.Echo`, or with an async context manager
like `open_http_stack`, and name it in `server.config.STACKS` and in `open_stack`.
"""

import os
from contextlib import AbstractAsyncContextManager, nullcontext
from importlib.util import find_spec

from capnp_rig.server.control.call_stamp import Stamp
from capnp_rig.server.control.messages import Setup
from capnp_rig.server.engines.engine import Engine
from capnp_rig.server.logs.log import Log
from capnp_rig.server.stacks.call_count import note_of
from capnp_rig.server.stacks.streams import StreamEngine

_LIBRARIES = {
    "json": ["orjson", "pybase64"],
    "http": ["uvicorn", "httptools", "hypercorn", "orjson", "pybase64"],
    "grpc": ["grpc", "google.protobuf"],
}
# The names by which those are installed whose modules have another.
_INSTALLED_AS = {"grpc": "grpcio", "google.protobuf": "protobuf"}


def missing_library(stack: str) -> str | None:
    """Return the name of a library that `stack` needs and this Python lacks, or None."""
    for module in _LIBRARIES.get(stack, []):
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:
            # The package around it is missing already.
            spec = None
        if spec is None:
            return _INSTALLED_AS.get(module, module)
    return None


def open_stack(setup: Setup, log: Log, stamp: Stamp) -> AbstractAsyncContextManager[Engine]:
    """Return the engine of a stack on an event loop, to be entered while it runs."""
    # Only the one used is imported: the others' libraries may be missing.
    note = note_of(setup, log, stamp)
    limits = setup.config.limits
    match setup.config.stack:
        case "echo":
            from capnp_rig.server.stacks.echo import Echo

            return nullcontext(StreamEngine(Echo, note, limits))
        case "json":
            from capnp_rig.server.stacks.json_rpc import JsonConnection

            return nullcontext(StreamEngine(JsonConnection, note, limits))
        case "http":
            from capnp_rig.server.stacks.http_server import open_http_stack

            return open_http_stack(note, log, limits)
        case "grpc":
            # Its core writes to stderr by itself, of what peers do.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from capnp_rig.server.stacks.grpc_server import open_grpc_stack

            assert setup.listen is not None
            return open_grpc_stack(
                note,
                log,
                limits,
                setup.config.tls,
                listen=setup.listen,
                max_connections=setup.max_connections,
            )
        case _:
            raise AssertionError(setup.config.stack)
