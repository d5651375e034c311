"""Services whose behaviour under load is known, for ``server run --service load_services:…``."""

import asyncio
import gc
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capnp_rig.schema import load_schema, message

DELAY_S = 300e-6
STALL_S = 0.5
# Of so many calls the first meets the stall; a test's rate says how long that is.
STALL_EVERY, STALL_AT = 5000, 3000
LIE_AT = 70_000


class Reverse:
    """Answers as the tutorial does."""

    interface = message.MessageStream

    def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        return {"chunk": content[::-1].encode()}


class Delaying(Reverse):
    """Takes 300 µs for each call."""

    delay_s = DELAY_S

    def read(self, params: Any) -> Mapping[str, bytes]:
        # A sleep would end when the system likes.
        until_s = time.perf_counter() + self.delay_s
        while time.perf_counter() < until_s:
            pass
        return super().read(params)


class DelayingMore(Delaying):
    """Takes 300 µs more."""

    delay_s = 2 * DELAY_S


class Waiting(Reverse):
    """Waits 20 ms on average for peers of its own: some calls hardly, some long."""

    async def read(self, params: Any) -> Mapping[str, bytes]:  # type: ignore[override]
        await asyncio.sleep(random.expovariate(1 / 0.02))
        return super().read(params)


class Stalling(Reverse):
    """Answers nothing for half a second at one in 5,000 calls."""

    def __init__(self) -> None:
        self._calls = 0

    def read(self, params: Any) -> Mapping[str, bytes]:
        self._calls += 1
        if self._calls % STALL_EVERY == STALL_AT:
            time.sleep(STALL_S)
        return super().read(params)


class LyingOnce(Reverse):
    """Gives one answer with one wrong byte."""

    def __init__(self) -> None:
        self._count = 0

    def read(self, params: Any) -> Mapping[str, bytes]:
        right = super().read(params)["chunk"]
        self._count += 1
        return (
            {"chunk": right[:5] + b"#" + right[6:]} if self._count == LIE_AT else {"chunk": right}
        )


class Counting(Reverse):
    """Tells how many calls it got, itself included, where the content is "count"."""

    def __init__(self) -> None:
        self._count = 0

    def read(self, params: Any) -> Mapping[str, bytes]:
        self._count += 1
        if params.request.content == "count":
            return {"chunk": str(self._count).encode()}
        return super().read(params)


class Collecting(Reverse):
    """Collects garbage in every 50th call."""

    def __init__(self) -> None:
        self._calls = 0

    def read(self, params: Any) -> Mapping[str, bytes]:
        self._calls += 1
        if self._calls % 50 == 0:
            gc.collect()
        return super().read(params)


class Moving:
    """Moves to (3, 4); the name in the params plants a fault.

    One reply in 100 is another with "wrong", each with "vary", and each fails with "fail".
    """

    interface = load_schema(str(Path(__file__).parent / "data" / "workload.capnp")).Geometry

    def __init__(self) -> None:
        self._calls = 0

    def move(self, params: Any) -> Mapping[str, Any]:
        self._calls += 1
        fault: str = params.name
        if fault == "fail":
            raise ZeroDivisionError
        is_wrong = fault == "wrong" and self._calls % 100 == 50
        return {"point": {"x": self._calls if fault == "vary" else 3 + is_wrong, "z": 4}}

    def measure(self, params: Any) -> Mapping[str, Any]:
        raise NotImplementedError

    kinds = plain = rare = watch = open = measure
