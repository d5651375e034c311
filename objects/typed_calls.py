"""What type checkers know of `AsyncClient[Adder]`; at run time nothing here does anything.

``client stubs`` writes a class for each interface of a schema. Each has the types of the methods
`call`, `pipeline` and `submit` of what has that interface: callables, overloaded by the names of
the interface's methods. The decorators here leave such a method as it is, and let a checker look up
its type: in Any, without an interface, that is Any.
"""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from capnp_rig.wire.rpc.interfaces import Interface

if TYPE_CHECKING:
    # Every checker knows it, whether it is installed or not.
    from typing_extensions import TypeVar as DefaultedTypeVar

    Interface_co = DefaultedTypeVar("Interface_co", default=Any, covariant=True)
    Results_co = DefaultedTypeVar("Results_co", default=Any, covariant=True)
    MethodType = DefaultedTypeVar("MethodType", default=Any)
else:
    Interface_co = TypeVar("Interface_co", covariant=True)
    Results_co = TypeVar("Results_co", covariant=True)
    MethodType = TypeVar("MethodType")

OtherInterface = TypeVar("OtherInterface")
Member_co = TypeVar("Member_co", covariant=True)

# What names an interface: its class in the stubs, which at run time is pycapnp's module of it.
Named = type[OtherInterface] | Interface | None


class Typed(Generic[Interface_co]):
    """What has the methods of an interface."""

    __slots__ = ()


class AwaitedResults(Generic[Results_co]):
    """The results of a call that is on its way: await them."""

    def __await__(self) -> Generator[Any, None, Results_co]:
        raise NotImplementedError


class PendingResults(Generic[Results_co]):
    """The results of a call that is on its way: `wait` for them."""

    def wait(self) -> Results_co:
        """Return the results."""
        raise NotImplementedError


# --- what the classes of interfaces have, and the methods that look it up -------------------


class _HasAsyncCall(Protocol[Member_co]):
    def _async_call(self) -> Member_co: ...


class _HasAsyncPipeline(Protocol[Member_co]):
    def _async_pipeline(self) -> Member_co: ...


class _HasCall(Protocol[Member_co]):
    def _call(self) -> Member_co: ...


class _HasPipeline(Protocol[Member_co]):
    def _pipeline(self) -> Member_co: ...


class _HasSubmit(Protocol[Member_co]):
    def _submit(self) -> Member_co: ...


class _AsyncCall(Protocol):
    def __get__(
        self, instance: Typed[_HasAsyncCall[MethodType]] | None, owner: Any
    ) -> MethodType: ...


class _AsyncPipeline(Protocol):
    def __get__(
        self, instance: Typed[_HasAsyncPipeline[MethodType]] | None, owner: Any
    ) -> MethodType: ...


class _Call(Protocol):
    def __get__(self, instance: Typed[_HasCall[MethodType]] | None, owner: Any) -> MethodType: ...


class _Pipeline(Protocol):
    def __get__(
        self, instance: Typed[_HasPipeline[MethodType]] | None, owner: Any
    ) -> MethodType: ...


class _Submit(Protocol):
    def __get__(self, instance: Typed[_HasSubmit[MethodType]] | None, owner: Any) -> MethodType: ...


def _as_it_is(method: Any) -> Any:
    return method


async_call: Callable[[Callable[..., Any]], _AsyncCall] = _as_it_is
async_pipeline: Callable[[Callable[..., Any]], _AsyncPipeline] = _as_it_is
blocking_call: Callable[[Callable[..., Any]], _Call] = _as_it_is
blocking_pipeline: Callable[[Callable[..., Any]], _Pipeline] = _as_it_is
blocking_submit: Callable[[Callable[..., Any]], _Submit] = _as_it_is
