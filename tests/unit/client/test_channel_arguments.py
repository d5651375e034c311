"""What a channel says to arguments that make no sense, before anything is connected."""

import asyncio
import time
from typing import Any

import pytest
import uvloop

from capnp_rig.client import AsyncChannel, Channel, Disconnected, NotAnInterface, UsageError
from capnp_rig.rigcli.address import AddressError
from capnp_rig.schema import message

READ = message.MessageStream


@pytest.mark.parametrize("kind", [Channel, AsyncChannel])
@pytest.mark.parametrize(
    ("endpoints", "options", "error", "reason"),
    [
        ("a:1,a:1", {}, AddressError, "twice"),
        (["a:1", "a:1"], {}, AddressError, "twice"),
        (["a"], {}, AddressError, "expected host:port"),
        ([], {}, UsageError, "at least one endpoint"),
        ([1], {}, UsageError, "an address is text"),
        (b"a:1", {}, UsageError, "addresses or a callable"),
        ("a:1", {"interface": 5}, NotAnInterface, "5"),
        ("a:1", {"idempotent": "read"}, UsageError, "a set of names"),
        ("a:1", {"idempotent": {"write"}}, UsageError, "MessageStream has no method 'write'"),
        ("a:1", {"size": 0}, UsageError, "at least 1 connection"),
        ("a:1", {"connect_timeout_s": -1}, UsageError, "a timeout is"),
        ("a:1", {"refresh_s": 0}, UsageError, "refresh_s"),
        ("a:1", {"sise": 3}, TypeError, "no option 'sise'"),
    ],
)
def test_nonsense_is_refused(
    kind: Any, endpoints: Any, options: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        kind(endpoints, **{"interface": READ, **options})


def test_a_blocking_call_of_nonsense_connects_to_nothing() -> None:
    with Channel("127.0.0.1:1", interface=READ) as channel:
        with pytest.raises(AttributeError, match="MessageStream has no method 'write'"):
            channel.call("write")
        with pytest.raises(UsageError, match="a timeout is"):
            channel.call("read", timeout_s=-1)
    with pytest.raises(Disconnected, match="the channel is closed"):
        channel.call("read")


def test_an_asyncio_channel_belongs_to_one_event_loop() -> None:
    channel = AsyncChannel("127.0.0.1:1", interface=READ)
    channel._loop = asyncio.new_event_loop()
    channel._loop.close()
    with pytest.raises(UsageError, match="another event loop"):
        asyncio.run(channel.call("read"))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_is_due_now_may_be_due_again(run: Any) -> None:
    """uvloop's handle of a timer that is due does not know when."""

    async def body() -> None:
        async with AsyncChannel("127.0.0.1:1", interface=READ) as channel:
            for _ in range(3):
                channel._arm(time.monotonic() - 1.0)

    run(body())
