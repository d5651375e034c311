"""pycapnp's own server of sessions, as a process that prints its port.

Run on stock asyncio, which needs no gate. `login` of "nobody" raises, of "null" returns no session;
that of "late" is a promise, which is resolved after the Return, that of "broken" one that breaks.
"""

import asyncio
import gc
from pathlib import Path
from typing import Any

from pycapnp_serving import serve_forever

from capnp_rig.schema import load_schema

SCHEMA = load_schema(Path(__file__).parent / "data" / "chains.capnp")
FILES = SCHEMA.Files


class Session(FILES.Session.Server):  # type: ignore[misc]
    live = logins = 0

    def __init__(self, user: str) -> None:
        self.user = user
        Session.live += 1
        Session.logins += 1

    def __del__(self) -> None:
        Session.live -= 1

    async def read(self, number: int, **_: Any) -> str:
        if number == 13:
            raise ValueError("no thirteenth page")
        return f"{self.user} {number}"

    async def logout(self, **_: Any) -> None:
        pass

    async def root(self, **_: Any) -> Any:
        return Folder(self.user)

    async def nested(self, **_: Any) -> Any:
        await asyncio.sleep(0.02)
        if self.user == "broken":
            raise ValueError("never")
        return Session(self.user)


class Folder(FILES.Folder.Server):  # type: ignore[misc]
    """Counts as a session."""

    def __init__(self, user: str) -> None:
        self.user = user
        Session.live += 1

    def __del__(self) -> None:
        Session.live -= 1

    async def size(self, **_: Any) -> int:
        return 7

    async def find(self, name: str, _context: Any, **_: Any) -> None:
        for field in ("node", "any", "cap"):
            setattr(_context.results, field, Folder(f"{self.user}/{name}"))


class Files(FILES.Server):  # type: ignore[misc]
    async def login(self, user: str, tag: int, _context: Any, **_: Any) -> None:
        if user == "nobody":
            raise ValueError("wrong password")
        if user == "null":
            return
        results = _context.results
        results.text = f"{user}, {tag}"
        if user in {"late", "broken"}:
            results.session = FILES.Session._new_client(Session(user)).nested().session
            return
        results.session = Session(user)
        pair = results.init("pair")
        pair.name, pair.session = "pair", Session(f"{user}'s other")

    async def either(self, side: str, _context: Any, **_: Any) -> None:
        if side == "none":
            _context.results.none = None
        else:
            setattr(_context.results, side, Session(side))

    async def grouped(self, _context: Any, **_: Any) -> None:
        _context.results.inside.session = Session("grouped")

    async def live(self, **_: Any) -> Any:
        gc.collect()
        return Session.live, Session.logins


if __name__ == "__main__":
    serve_forever(Files)
