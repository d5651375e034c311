"""Objects that are served: their methods, their streams and their end, without a connection."""

import gc
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.objects.binding import ServiceError
from capnp_rig.objects.serving import References, Served, Serving
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import RemoteError

DATA = Path(__file__).parents[2] / "data"
UPLOAD = load_schema(DATA / "streams.capnp").Upload
LISTENER = load_schema(DATA / "callbacks.capnp").Listener


class NoSession:
    """Opens and packs messages without capabilities."""

    frame_limits = DEFAULT_LIMITS

    def open(self, codec: Any, content: Any) -> Any:
        return codec.open(content)

    def pack(self, codec: Any, values: Any) -> Any:
        return codec.pack(values), []


class Upload:
    interface = UPLOAD

    def __init__(self) -> None:
        self.done: list[str] = []

    def write(self, _: Any) -> None:
        self.done.append("write")
        if self.done == ["write", "write"]:
            raise ServiceError("full")

    def end(self, _: Any) -> None:
        self.done.append("end")


class AsyncEnd(Upload):
    async def end(self, _: Any) -> None:  # type: ignore[override]
        """Wait for nothing."""


class Both(Upload):
    interface = (UPLOAD, LISTENER)

    def heard(self, _: Any) -> None:
        """Do nothing."""


class AsyncClose(Upload):
    async def close(self) -> None:
        """Wait for nothing."""


class Half:
    interface = UPLOAD

    def write(self, _: Any) -> None:
        """Do nothing."""


def explain(_: str, error: BaseException) -> str:
    return str(error)


def serving(*, takes_async: bool = True) -> Serving:
    return Serving(explain, lambda _: None, takes_async=takes_async)


def ids(name: str, interface: Any = UPLOAD) -> tuple[int, int]:
    method = compile_interface(interface).methods[name]
    return method.interface_id, method.method_id


def outcomes(served: Served, *names: str) -> list[Any]:
    return [served.inline[ids(name)](None) for name in names]


def test_what_fails_in_a_plain_stream_ends_it() -> None:
    target = Upload()
    served = serving().served(target, NoSession())
    full = RemoteError("full")
    assert outcomes(served, "write", "write", "write", "end") == [EMPTY_STRUCT, full, full, full]
    assert target.done == ["write", "write"]


def test_a_plain_stream_fails_an_async_method_too() -> None:
    served = serving().served(AsyncEnd(), NoSession())
    outcomes(served, "write", "write")
    assert served.order is not None
    assert served.order.error == RemoteError("full")
    assert ids("end") in served.async_methods


def test_each_connection_has_streams_of_its_own() -> None:
    assert serving().shared(Upload()) is None


def test_an_object_has_the_methods_of_all_its_interfaces() -> None:
    served = serving().served(Both(), NoSession())
    assert set(served.inline) == {ids("write"), ids("end"), ids("heard", LISTENER)}
    assert [served.knows(each) for each in (ids("write")[0], ids("heard", LISTENER)[0], 1)] == [
        *(True, True, False),
    ]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (5, "expected a capability, or an object with an interface, not int"),
        (Half(), "Half cannot be served: Half lacks the method end"),
        (AsyncEnd(), "AsyncEnd cannot be served: AsyncEnd.end is async; AsyncClient serves it"),
        (AsyncClose(), "AsyncClose cannot be served: its close is async; AsyncClient serves it"),
    ],
)
def test_what_a_blocking_client_does_not_serve(target: Any, reason: str) -> None:
    with pytest.raises(EncodeError) as refusal:
        serving(takes_async=False).served(target, NoSession())
    assert str(refusal.value) == reason


class Closing:
    def close(self) -> None:
        """Is not called here."""


def test_the_last_connection_closes_an_object_and_none_does_it_again() -> None:
    closed: list[Any] = []
    references = References(closed.append)
    target = Closing()
    references.add(target)
    references.add(target)
    references.drop(target)
    assert closed == []
    references.drop(target)
    assert closed == [target]
    references.add(target)
    references.drop(target)
    assert closed == [target]


def test_an_object_in_the_place_of_one_that_was_closed_is_closed_too() -> None:
    closed: list[str] = []
    references = References(lambda target: closed.append(type(target).__name__))
    for _ in range(3):
        # Each has the address, and so the id, of the one before.
        target = Closing()
        references.add(target)
        references.drop(target)
        del target
        gc.collect()
    assert closed == ["Closing"] * 3
