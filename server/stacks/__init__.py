"""The rivals: the same job as the capnp stack, over the layers that the tutorial walks through.

The job is `server.services.reverse.reverse`: a text comes in and goes out reversed, by code
point. A stack stands where an engine stands (`server.engines.Engine`), on the same pinned
workers, which are handed the same accepted connections. What differs is told by each module,
with its wire format to the byte:

    echo        `echo`              every byte comes back as it is
    json        `json_rpc`          JSON values back to back; "Ping" and calls
    http        `http_server`       HTTP/1.1 and HTTP/2, JSON bodies
    grpc        `grpc_server`       gRPC; each worker listens by itself
    selectors   `readiness_worker`  length-prefixed texts, without an event loop

All take texts of up to `MAX_TEXT_BYTES` of UTF-8. What is longer, or unreadable, is answered
in the protocol's own way or ends that connection alone.

To add one: write a module with an async context manager like `open_echo_stack`, and name it in
`server.config.STACKS` and in `open_stack`.
"""

import os
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec

from capnp_rig.server.control.messages import Setup
from capnp_rig.server.engines import Engine
from capnp_rig.server.logs.log import Log

MAX_TEXT_BYTES = 16_777_216
# Of a JSON value, an HTTP body or a protobuf message: room for what stands around the text. A
# text whose JSON has escapes counts as its escaped form.
MAX_MESSAGE_BYTES = MAX_TEXT_BYTES + 4096
# Why a connection ended, in the wire engine's words.
CUT_OFF = "the peer closed within a message"

# Module to look for, and the name it is installed by.
_LIBRARIES = {
    "json": [("orjson", "orjson"), ("pybase64", "pybase64")],
    "http": [
        ("uvicorn", "uvicorn"),
        ("httptools", "httptools"),
        ("hypercorn", "hypercorn"),
        ("orjson", "orjson"),
        ("pybase64", "pybase64"),
    ],
    "grpc": [("grpc", "grpcio"), ("google.protobuf", "protobuf")],
}


def missing_library(stack: str) -> str | None:
    """Return the name of a library that `stack` needs and this Python lacks, or None."""
    for module, name in _LIBRARIES.get(stack, []):
        try:
            found = find_spec(module)
        except ModuleNotFoundError:
            # The package around it is missing already.
            found = None
        if found is None:
            return name
    return None


def open_stack(setup: Setup, log: Log) -> AbstractAsyncContextManager[Engine]:
    """Return the engine of a stack on an event loop, to be entered while it runs."""
    # Only the one used is imported: the others' libraries may be missing.
    note = log.debug if setup.log_level == "debug" else None
    match setup.stack:
        case "echo":
            from capnp_rig.server.stacks.echo import open_echo_stack

            return open_echo_stack(note)
        case "json":
            from capnp_rig.server.stacks.json_rpc import open_json_stack

            return open_json_stack(note)
        case "http":
            from capnp_rig.server.stacks.http_server import open_http_stack

            return open_http_stack(note, log)
        case "grpc":
            # Its core writes to stderr by itself, of what peers do.
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from capnp_rig.server.stacks.grpc_server import open_grpc_stack

            assert setup.listen is not None
            return open_grpc_stack(
                note, log, listen=setup.listen, max_connections=setup.max_connections
            )
        case _:
            raise AssertionError(setup.stack)
