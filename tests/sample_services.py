"""Services that misbehave, for ``server run --service sample_services:Name`` in this folder."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capnp_rig.objects.binding import ServiceError
from capnp_rig.objects.call_context import call_context
from capnp_rig.schema import load_schema, message


def say_called(content: str) -> None:
    """Tell the test that a call has begun: what it waits for before its next step."""
    print(f"Called with {content}", flush=True)  # noqa: T201 - the server's own output


class Held:
    """Answers in reverse once the file exists whose path is the content; "late" at once."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        say_called(content)
        while content != "late" and not os.path.exists(content):  # noqa: PTH110
            await asyncio.sleep(0.01)
        return {"chunk": content[::-1].encode()}


class Slow:
    """Sleeps for as many seconds as the content says, then reverses it."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        say_called(content)
        await asyncio.sleep(float(content.split(maxsplit=1)[0]))
        return {"chunk": content[::-1].encode()}


class Large:
    """Answers with as many bytes as the content says, half a second later."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        size = int(params.request.content)
        say_called(params.request.content)
        await asyncio.sleep(0.5)
        return {"chunk": bytes(size)}


class Faulty:
    """Fails as the content says."""

    interface = message.MessageStream

    def read(self, params: Any) -> Any:
        content: str = params.request.content
        say_called(content)
        match content:
            case "service":
                raise ServiceError("no such word")
            case "bug":
                raise ValueError("secret of /etc/passwd")
            case "chained":
                try:
                    return {}["inner secret"]
                except KeyError as error:
                    raise RuntimeError("outer secret") from error
            case "field":
                return {"nope": 1}
            case "type":
                return {"chunk": 1}
            case "none":
                return None
            case "block":
                time.sleep(30)
            case "work":
                time.sleep(6)
        return {"chunk": content[::-1].encode()}


class Incomplete:
    interface = message.MessageStream


class Rare:
    """Fields that struct views leave to pycapnp, an inherited and an async method."""

    interface = load_schema(Path(__file__).resolve().parent / "data" / "kinds.capnp").RareService

    def base(self, _params: Any) -> None:
        return None

    def echo(self, params: Any) -> Mapping[str, Any]:
        rare = params.rare
        return {
            "rare": {
                "number": rare.number,
                "texts": list(rare.texts),
                "inners": [{"number": i.number, "name": i.name} for i in rare.inners],
                "flags": list(rare.flags),
                "colours": [str(colour) for colour in rare.colours],
                "group": {"low": rare.group.low, "high": rare.group.high},
                "second": rare.second,
                "inner": {"number": rare.inner.number, "name": rare.inner.name},
                "nested": [list(row) for row in rare.nested],
            },
            "active": rare.which(),
        }

    async def later(self, params: Any) -> Mapping[str, str]:
        await asyncio.sleep(0.01)
        return {"name": params.name}


class Whoami:
    """Answers with the subject and the serial number of the caller's certificate, if there is one.

    For "late" it asks after a turn of the loop.
    """

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        if params.request.content == "late":
            await asyncio.sleep(0)
        certificate = call_context().peer.certificate
        if certificate is None:
            return {"chunk": b"nobody"}
        names = [name for _, name in certificate.alternative_names]
        said = [certificate.subject, *names, certificate.serial_number]
        return {"chunk": "|".join(said).encode()}
