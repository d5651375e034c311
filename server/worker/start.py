"""The start of a worker: orders, CPU, service, loop. The supervisor learns what failed."""

import asyncio
import contextlib
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any

from capnp_rig.objects.binding import bind_methods
from capnp_rig.objects.users_code import BadServiceError, ServiceCodeError
from capnp_rig.rigcli.gc_page import publish_gc
from capnp_rig.rigcli.tls import TlsFileError
from capnp_rig.server.connections.tls import adoption
from capnp_rig.server.control.call_stamp import open_stamp
from capnp_rig.server.control.channel import Channel, ChannelClosedError
from capnp_rig.server.control.messages import Failed, Setup
from capnp_rig.server.service import load_service
from capnp_rig.server.worker.loop import Worker

_SETUP_TIMEOUT_MS = 5_000
FAILED = 1
# A packet to the supervisor holds both, with six bytes for each character that is not ASCII.
_MAX_CAUSE_CHARS = 2_000
_MAX_TRACE_CHARS = 8_000


def start(control: socket.socket, stamp_fd: int) -> int:
    """Serve as the supervisor orders and return the exit status."""
    channel = Channel(control)
    try:
        return _prepare(channel, stamp_fd)()
    except ChannelClosedError:
        return FAILED
    except BaseException as error:  # noqa: BLE001 - told to the supervisor, which decides
        trace = error.trace if isinstance(error, ServiceCodeError) else None
        channel.send(Failed(_one_line(error), trace and trace[-_MAX_TRACE_CHARS:]))
        return FAILED


def _prepare(channel: Channel, stamp_fd: int) -> Callable[[], int]:
    setup = _receive_setup(channel)
    stamp = open_stamp(stamp_fd)
    _leave_removed_folder(setup.folder)
    pin_error = _pin(setup.core)
    publish_gc()
    if setup.config.stack == "selectors":
        # A loop of its own, in the place of both `Worker` and asyncio.
        from capnp_rig.server.stacks.readiness_worker import ReadinessWorker

        return ReadinessWorker(channel, setup, pin_error, stamp).run
    service = _load(setup) if setup.config.stack == "capnp" else None
    loop_factory = _loop_factory(setup.config.loop)
    securing = adoption(setup.config)

    def run() -> int:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            worker = Worker(channel, setup, service, pin_error, stamp, securing)
            return runner.run(worker.run())

    return run


def _load(setup: Setup) -> Any:
    # As a server for anyone's service does, look where the user stands; after everything else, so
    # that no file of theirs shadows ours.
    if setup.folder is not None:
        sys.path.append(setup.folder)
    service = load_service(setup.config.service)
    bind_methods(service)
    return service


def _leave_removed_folder(folder: str | None) -> None:
    """Step out of a working directory that is gone: without one, pycapnp aborts the process."""
    with contextlib.suppress(OSError):
        os.getcwd()  # noqa: PTH109 - asked whether there is one
        return
    # A deploy may have put a new folder in its place.
    for place in ("/", folder):
        if place is not None:
            with contextlib.suppress(OSError):
                os.chdir(place)


def _receive_setup(channel: Channel) -> Setup:
    waiting = select.poll()
    waiting.register(channel.fileno(), select.POLLIN)
    waiting.poll(_SETUP_TIMEOUT_MS)
    received = channel.receive()
    if received is None or not isinstance(received[0], Setup):
        raise TimeoutError("the supervisor sent no setup")
    return received[0]


def _pin(core: int | None) -> str | None:
    """Move to `core`, before any thread starts; return the reason if that is refused."""
    if core is None:
        return None
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        return error.strerror
    return None


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    import uvloop

    factory: Any = uvloop.new_event_loop
    return factory  # type: ignore[no-any-return]


def _one_line(error: BaseException) -> str:
    """Return the error in one line; our own errors need no class name to be understood."""
    text = " ".join(str(error).split())[:_MAX_CAUSE_CHARS]
    if isinstance(error, (BadServiceError, ServiceCodeError, TlsFileError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
