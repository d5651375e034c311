"""The service of the soak, for ``server run --service soak.service:Soaked`` in ``tests``."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soak.census import Census

from capnp_rig.objects.binding import ServiceError
from capnp_rig.schema import load_schema

SCHEMA = load_schema(Path(__file__).resolve().parent.parent / "data" / "soak.capnp")

# The worker's own, and the one that counts.
_RESTING_TASKS = 2
_SETTLING_POLLS = 1000


class Soaked:
    interface = SCHEMA.Soak

    def __init__(self) -> None:
        # The ledger of executions, by method.
        self.ran: Counter[str] = Counter()
        self.running = 0
        self.sessions = 0

    def plain(self, params: Any) -> Mapping[str, Any]:
        self.ran["plain"] += 1
        return {"nonce": params.nonce, "data": bytes(params.data)[::-1]}

    async def later(self, params: Any) -> Mapping[str, Any]:
        self.ran["later"] += 1
        await asyncio.sleep(0)
        return {"nonce": params.nonce, "data": bytes(params.data)[::-1]}

    def fail(self, params: Any) -> None:
        raise ServiceError(f"failed as asked: {params.nonce}")

    def crash(self, params: Any) -> None:
        raise LookupError(f"secret {params.nonce}")

    async def wait(self, _params: Any) -> None:
        self.running += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.running -= 1

    def zeros(self, params: Any) -> Mapping[str, Any]:
        return {"nonce": params.nonce, "data": bytes(params.size)}

    async def zerosLater(self, params: Any) -> Mapping[str, Any]:
        nonce, size = params.nonce, params.size
        await asyncio.sleep(0)
        return {"nonce": nonce, "data": bytes(size)}

    async def census(self, _params: Any) -> Mapping[str, str]:
        # Heartbeats, and connections that are taken over, are tasks for a moment. One that has
        # ended is in the worker's table for one turn more, so this waits first.
        for _ in range(_SETTLING_POLLS):
            await asyncio.sleep(0.001)
            if len(asyncio.all_tasks()) <= _RESTING_TASKS:
                break
        found = asdict(Census.take())
        found["tasks"] = len(asyncio.all_tasks())
        found["running"] = self.running
        found["sessions"] = self.sessions
        found["ran"] = self.ran
        return {"report": json.dumps(found)}

    # --- capabilities

    def open(self, _params: Any) -> Mapping[str, Any]:
        return {"session": Session(self)}

    async def lend(self, params: Any) -> Mapping[str, Any]:
        self.ran["lend"] += 1
        nonce, data = params.nonce, bytes(params.data)
        results = await params.echo.call("plain", {"nonce": nonce, "data": data})
        return {"nonce": results.nonce, "data": bytes(results.data)}

    def promise(self, params: Any) -> Mapping[str, Any]:
        return {"echo": params.giver.pipeline("give", {}).echo}


class Session:
    """A capability that is given out, is counted, and may hold one of the client."""

    interface = SCHEMA.Session

    def __init__(self, owner: Soaked) -> None:
        self._owner = owner
        self._echo: Any = None
        owner.sessions += 1

    def plain(self, params: Any) -> Mapping[str, Any]:
        return self._owner.plain(params)

    async def later(self, params: Any) -> Mapping[str, Any]:
        return await self._owner.later(params)

    def open(self, params: Any) -> Mapping[str, Any]:
        return self._owner.open(params)

    def keep(self, params: Any) -> None:
        self._echo = params.echo

    def kept(self, _params: Any) -> Mapping[str, Any]:
        return {"echo": self._echo}

    async def wait(self, params: Any) -> None:
        await self._owner.wait(params)

    def close(self) -> None:
        # Once only: less than none shows in the census.
        self._owner.sessions -= 1
        self._echo = None
