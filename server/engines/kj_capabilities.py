"""Capabilities on one of KJ's connections: objects of ours that the peer has, and what it passed.

KJ counts the references and keeps the order. An object of ours is a `Server` of pycapnp's, which KJ
drops with the last reference to it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, Final
from weakref import WeakMethod, WeakValueDictionary

import capnp

from capnp_rig.objects.binding import BoundMethod, bind_methods, interfaces_of
from capnp_rig.objects.caller import AsyncCapability, AsyncPipeline
from capnp_rig.objects.capabilities import AnyCapability, Params
from capnp_rig.objects.errors import ClientError, DeadlineExceeded, Disconnected, remote_error
from capnp_rig.objects.pipelines import Names, Path, capability_in
from capnp_rig.objects.serving import References
from capnp_rig.objects.session import check_interface
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, check_timeout
from capnp_rig.objects.users_code import BadServiceError
from capnp_rig.server.engines.kj_results import writer_of
from capnp_rig.server.engines.kj_views import CLIENT, View
from capnp_rig.server.engines.peer_errors import unmarked
from capnp_rig.wire.errors import EncodeError, NotAnInterface, UnusableCapability
from capnp_rig.wire.rpc.interfaces import Interface, Method
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

# Answers a call of a method, whose params and results KJ's context has.
Answer = Callable[[BoundMethod, Any], Coroutine[Any, Any, None]]
_PYCAPNPS: Final = (
    CLIENT,
    capnp.lib.capnp._DynamicCapabilityServer,
    capnp.lib.capnp._DynamicObjectReader,
    capnp.lib.capnp._DynamicObjectBuilder,
)
_FOLLOWED: Final = ("struct", "interface")
_REMOTE: Final = "remote exception: "


class Server(capnp.lib.capnp._DynamicCapabilityServer):  # type: ignore[misc]
    """An object of ours, as pycapnp calls it; `dropped` is called when KJ needs it no more."""

    def __init__(
        self,
        target: Any,
        methods: Sequence[BoundMethod],
        answer: Answer,
        dropped: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.target = target
        self.interfaces = interfaces_of(target)
        self.schema = widest(self.interfaces).schema
        named: dict[str, list[BoundMethod]] = {}
        for method in methods:
            named.setdefault(method.name, []).append(method)
        for name, same in named.items():
            is_only = len(same) == 1
            handler = partial(answer, same[0]) if is_only else partial(_answer_called, answer, same)
            setattr(self, f"{name}_context", handler)
        self._dropped = dropped

    def __del__(self) -> None:
        if dropped := getattr(self, "_dropped", None):
            dropped(self.target)


def _answer_called(
    answer: Answer, methods: Sequence[BoundMethod], context: Any
) -> Coroutine[Any, Any, None]:
    """Answer a call of one of several methods of one name, which pycapnp calls by that."""
    params = context.params.schema.node.id
    same = (each for each in methods if each.method.params.schema.node.id == params)
    return answer(next(same), context)


def widest(interfaces: Sequence[Interface]) -> Interface:
    """Return that which extends all others.

    Raises:
        BadServiceError: There is none.
    """
    for each in interfaces:
        if all(other.id in each.ids for other in interfaces):
            return each
    names = " and ".join(each.name for each in interfaces)
    raise BadServiceError(
        f"pycapnp serves objects of one interface, not of {names}: name one that extends them, "
        "or use --engine wire"
    )


class Reference:
    """A client of pycapnp's; the place of `wire`'s capability in an `AsyncCapability`."""

    __slots__ = ("_peer", "client")

    def __init__(self, peer: "Peer", client: Any) -> None:
        # It would keep the message that it is from, with all other capabilities in it.
        client._parent = None
        self._peer = peer
        self.client = client

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self.client is None

    def release_later(self) -> None:
        """Give it back."""
        self.client = None

    def copy(self) -> "Reference":
        """Return another reference.

        Raises:
            UnusableCapability: It was released.
        """
        return Reference(self._peer, self.live())

    def live(self) -> Any:
        """Return the client.

        Raises:
            UnusableCapability: It was released.
        """
        if self.client is None:
            raise UnusableCapability("the capability was released before")
        return self.client

    def __del__(self) -> None:
        # What is KJ's ends in its thread.
        if self.client is not None and get_ident() != self._peer.thread:
            last, self.client = [self.client], None
            with suppress(RuntimeError):
                self._peer.loop.call_soon_threadsafe(last.clear)


class Peer:
    """The other end of a connection, and the owner of its capabilities (`caller.AsyncOwner`)."""

    def __init__(self, references: References, answer: Answer) -> None:
        """Serve objects; `answer`, a method, is not kept alive."""
        self.loop, self.thread = asyncio.get_running_loop(), get_ident()
        # Calls of ours that wait for their answers.
        self.waiting = 0
        self._references = references
        self._answer = WeakMethod(answer)
        # By `id` of the object, which its server keeps.
        self._served: WeakValueDictionary[int, Server] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()

    def lift(self, client: Any, interface: Any) -> AsyncCapability:
        """Return what users have of a client of pycapnp's."""
        reference: Any = Reference(self, client)
        return AsyncCapability(self, reference, interface)

    def lower(self, value: Any, interface: Any) -> Any:
        """Return what pycapnp sets for a capability, or for an object of ours, which it serves.

        Raises:
            EncodeError: It is neither, or not of the interface.
            UnusableCapability: It was closed, or belongs to another connection.
        """
        if isinstance(value, AnyCapability):
            if value.owner is not self:
                raise UnusableCapability(f"{value!r} belongs to another connection")
            if value.interface is not None:
                check_interface((value.interface,), interface, value)
            reference: Any = value.reference
            client = reference.live()
            return client if interface is None else client.cast_as(interface)
        if isinstance(value, _PYCAPNPS):
            return value
        server = self._served.get(id(value)) or self._serve(value)
        check_interface(server.interfaces, interface, value)
        return server

    def _serve(self, target: Any) -> Server:
        kind, answer = type(target).__name__, self._answer()
        if answer is None:
            raise Disconnected("the connection has ended")
        try:
            if not interfaces_of(target):
                raise EncodeError(
                    f"expected a capability, or an object with an interface, not {kind}"
                )
            server = Server(target, bind_methods(target), answer, self._dropped)
        except (BadServiceError, NotAnInterface) as error:
            raise EncodeError(f"{kind} cannot be served: {error}") from error
        self._references.add(target)
        self._served[id(target)] = server
        return server

    def _dropped(self, target: Any) -> None:
        # Later: KJ may be in the middle of something.
        with suppress(RuntimeError):
            self.loop.call_soon(self._references.drop, target)

    # --- what capabilities need

    def released(self) -> None:
        """Do nothing: KJ tells the peer."""

    forgotten = released

    async def call(
        self, target: AsyncCapability, name: str, params: Params, timeout_s: float | None
    ) -> Any:
        """Call a capability, as `AsyncCapability.call`; of a stream, too, the answer is awaited."""
        timeout_s = _timeout_s(timeout_s)
        method, promise = self._send(target, name, params)
        return await self._results(method, promise, timeout_s)

    def pipeline(
        self, target: AsyncCapability, name: str, params: Params, timeout_s: float | None
    ) -> AsyncPipeline:
        """Call a capability, as `AsyncCapability.pipeline`."""
        timeout_s = _timeout_s(timeout_s)
        method, promise = self._send(target, name, params)
        codec = method.results
        # Now: once it is awaited it has nothing more to give.
        ahead = {
            field.name: getattr(promise, field.name)
            for field in codec.fields
            if field.group or (field.pointer_type and field.pointer_type.which in _FOLLOWED)
        }
        task = self.loop.create_task(self._results(method, promise, timeout_s))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

        async def wait() -> Any:
            try:
                # Others may await the same.
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                task.cancel()
                raise

        def promised(names: Names, _: Path, interface: Any) -> AnyCapability | None:
            if task.done():
                capability: AnyCapability | None = capability_in(task.result(), names)
                return capability
            if names[0] not in ahead:
                raise AttributeError(f"{names[0]}: pycapnp does not call what is an AnyPointer")
            client = ahead[names[0]]
            for each in names[1:]:
                client = getattr(client, each)
            return self.lift(client, interface)

        return AsyncPipeline(wait, promised, codec)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Who does not await the results does not want to hear of it.
            task.exception()

    def _send(self, target: AsyncCapability, name: str, params: Params) -> tuple[Method, Any]:
        interface = target.interface
        reference: Any = target.reference
        if interface is None:
            raise AttributeError(f"{name!r}: the capability's interface is not known: cast it")
        method = interface.methods.get(name)
        if method is None:
            raise AttributeError(f"{interface.name} has no method {name!r}")
        client = reference.live().cast_as(interface.schema)
        request = client._request(name)
        writer_of(method.params).write(request, params or {}, self.lower)
        return method, request.send()

    async def _results(self, method: Method, promise: Awaitable[Any], timeout_s: float) -> Any:
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                reader = await promise
        except TimeoutError:
            raise DeadlineExceeded("no answer within the deadline") from None
        except capnp.KjException as error:
            raise _call_error(error) from None
        finally:
            self.waiting -= 1
        return None if method.is_streaming else View(reader, method.results, self.lift)


def _timeout_s(timeout_s: float | None) -> float:
    timeout_s = CALL_TIMEOUT_S if timeout_s is None else check_timeout(timeout_s)
    if timeout_s == 0:
        raise DeadlineExceeded("the call had no time: nothing was sent")
    return timeout_s


def _call_error(error: Any) -> ClientError:
    """Return what a call ended in, without the words that pycapnp and KJ put around it."""
    is_remote = error.description.startswith(_REMOTE)
    if error.type == "DISCONNECTED" and not is_remote:
        return Disconnected("the connection has ended")
    text = unmarked(error.description.removeprefix(_REMOTE))
    return remote_error(RemoteError(text, ExceptionType[error.type]))
