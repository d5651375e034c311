"""A service that does to its worker what no service should, for the fault tests."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fault_services import PROBE

from capnp_rig.wire.errors import ViewExpired

FAILURES: list[type[BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    RecursionError,
    MemoryError,
]


class Rude:
    """Keeps its params, and fails with the exception whose number it is asked for."""

    interface = PROBE

    def __init__(self) -> None:
        self.views: list[Any] = []
        self.data: list[tuple[memoryview, bytes]] = []

    def lengths(self, params: Any) -> Mapping[str, int]:
        kinds = params.kinds
        self.views += [params, kinds]
        self.data.append((kinds.data, bytes(kinds.data)))
        return {"data": len(kinds.data)}

    def ledger(self, _params: Any) -> Mapping[str, int]:
        """Count what was kept, and what of it has changed since."""
        changed = sum(view != before for view, before in self.data)
        return {"started": len(self.data), "ended": changed}

    def depth(self, _params: Any) -> Mapping[str, int]:
        """Count the views that have expired."""
        return {"depth": sum(map(_has_expired, self.views))}

    def large(self, params: Any) -> None:
        raise FAILURES[params.size]

    async def largeLater(self, params: Any) -> None:
        number: int = params.size
        await asyncio.sleep(0)
        raise FAILURES[number]

    async def later(self, _params: Any) -> None:
        pass

    async def wait(self, _params: Any) -> None:
        pass

    def echo(self, _params: Any) -> None:
        pass

    def echoRare(self, _params: Any) -> None:
        pass


def _has_expired(view: Any) -> bool:
    try:
        _ = view.kinds if hasattr(type(view), "kinds") else view.data
    except ViewExpired:
        return True
    return False
