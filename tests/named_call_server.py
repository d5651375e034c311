"""A pycapnp server of what `client call` is tried on, as a process that prints its port.

Run on stock asyncio, which needs no gate.
"""

import asyncio
from pathlib import Path
from typing import Any

from pycapnp_serving import serve_forever

from capnp_rig.schema import load_schema

DATA = Path(__file__).parent / "data"
LEVEL_1 = load_schema(DATA / "level_1.capnp")


class Session(LEVEL_1.Session.Server):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.name = name

    async def read(self, number: int, **_: Any) -> str:
        return f"{self.name} {number}"

    async def nested(self, name: str, **_: Any) -> "Session":
        return Session(f"{self.name}.{name}")


class Main(LEVEL_1.Main.Server):  # type: ignore[misc]
    async def login(self, user: str, _context: Any, **_: Any) -> None:
        if user == "nobody":
            raise ValueError("wrong password \x1b[31m\x07 for nobody")
        if user == "slow":
            await asyncio.sleep(60)
        pair = _context.results.init("pair")
        pair.name = f"{user}\x1b[31m\x9b\u202e"
        if user != "guest":
            _context.results.session = Session(user)
            pair.session = Session("other")
            pair.init("others", 2)[0] = Session("third")

    async def back(self, callback: Any, **_: Any) -> Any:
        return callback


if __name__ == "__main__":
    serve_forever(Main)
