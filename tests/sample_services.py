"""Services that misbehave, for ``server run --service sample_services:Name`` in this folder."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from schema import message
from server.service import ServiceError


class Slow:
    """Sleeps for as many seconds as the content says, then reverses it."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        content: str = params.request.content
        await asyncio.sleep(float(content.split(maxsplit=1)[0]))
        return {"chunk": content[::-1].encode()}


class Large:
    """Answers with as many bytes as the content says, half a second later."""

    interface = message.MessageStream

    async def read(self, params: Any) -> Mapping[str, bytes]:
        size = int(params.request.content)
        await asyncio.sleep(0.5)
        return {"chunk": bytes(size)}


class Faulty:
    """Fails as the content says."""

    interface = message.MessageStream

    def read(self, params: Any) -> Any:
        content: str = params.request.content
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
        return {"chunk": content[::-1].encode()}


class Incomplete:
    interface = message.MessageStream
