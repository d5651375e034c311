"""The service of the fault tests, for ``server run --service fault_services:Probe``."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capnp_rig.schema import load_schema

PROBE = load_schema(Path(__file__).resolve().parent / "data" / "probe.capnp").Probe


class Probe:
    interface = PROBE

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0

    def depth(self, params: Any) -> Mapping[str, int]:
        kinds, depth = params.kinds, 0
        while kinds._has("again"):
            kinds = kinds.again
            depth += 1
        return {"depth": depth}

    def lengths(self, params: Any) -> Mapping[str, int]:
        kinds = params.kinds
        return {"text": len(kinds.text), "data": len(kinds.data), "longs": len(kinds.longs)}

    async def later(self, params: Any) -> Mapping[str, str]:
        kinds = params.kinds
        await asyncio.sleep(0.05)
        return {"text": kinds.text}

    async def wait(self, _params: Any) -> None:
        self.started += 1
        try:
            await asyncio.sleep(120)
        finally:
            self.ended += 1

    def ledger(self, _params: Any) -> Mapping[str, int]:
        return {"started": self.started, "ended": self.ended}

    def large(self, params: Any) -> Mapping[str, bytes]:
        return {"data": bytes(params.size)}

    async def largeLater(self, params: Any) -> Mapping[str, bytes]:
        size: int = params.size
        await asyncio.sleep(0.2)
        return {"data": bytes(size)}

    def echo(self, _params: Any) -> None:
        pass

    def echoRare(self, _params: Any) -> None:
        pass
