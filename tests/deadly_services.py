"""Services that kill or outlive their worker, for ``--service deadly_services:Name`` here."""

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

from capnp_rig.schema import message


def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case "abort":
            os.abort()
        case "killed":
            # As by the system when its memory is used up.
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            ctypes.string_at(0)


class Deadly:
    """Dies as the content says, or reverses it."""

    interface = message.MessageStream

    def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        die(content)
        return {"chunk": content[::-1].encode()}


class DeadlyLater:
    """The same, some turns of the loop later; "wait" waits."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        if content.startswith("wait"):
            await asyncio.sleep(60)
        await asyncio.sleep(0.05)
        die(content)
        return {"chunk": content[::-1].encode()}


class Interrupted(Deadly):
    def __init__(self) -> None:
        raise KeyboardInterrupt


class Exiting(Deadly):
    def __init__(self) -> None:
        raise SystemExit(5)


class Parent:
    """Starts processes, and answers with their numbers."""

    interface = message.MessageStream

    def __init__(self) -> None:
        self.children: list[Any] = []

    def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        match content:
            case "program":
                child: Any = subprocess.Popen(["/bin/sleep", "100"])
                pids = [child.pid]
            case "terminated program":
                child = subprocess.Popen(["/bin/sleep", "100"])
                child.terminate()
                return {"chunk": str(child.wait(10)).encode()}
            case "mask":
                child = subprocess.run(
                    ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"],
                    stdout=subprocess.PIPE,
                    check=True,
                )
                return {"chunk": child.stdout}
            case "pool":
                child = multiprocessing.get_context("fork").Pool(2)
                child.map(abs, [1, 2])
                pids = [process.pid for process in child._pool]
            case "terminated pool":
                child = multiprocessing.get_context("fork").Pool(2)
                child.terminate()
                child.join()
                return {"chunk": b"joined"}
            case _:
                os._exit(1)
        self.children.append(child)
        return {"chunk": " ".join(map(str, pids)).encode()}


class Threaded(Deadly):
    """Has a thread that ends long after everything else."""

    def __init__(self) -> None:
        threading.Thread(target=time.sleep, args=[100], daemon=False).start()


class Stubborn:
    """Does not end when it is cancelled: "loop" in the loop, "thread" in a thread."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        if content == "thread":
            await asyncio.to_thread(time.sleep, 100)
        end_s = time.monotonic() + 100
        while content == "loop" and time.monotonic() < end_s:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)
        return {"chunk": content[::-1].encode()}


class Failing:
    """Fails every call."""

    interface = message.MessageStream

    def read(self, _params: Any) -> None:
        raise ValueError("no")
