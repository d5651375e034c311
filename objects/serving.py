"""How objects of ours are served: their methods as `wire` calls them, and their end."""

import inspect
import weakref
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from capnp_rig.objects.binding import BoundMethod, bind_methods, interfaces_of, unusable
from capnp_rig.objects.call_context import Inline
from capnp_rig.objects.users_code import BadServiceError
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameLimits
from capnp_rig.wire.encoding.pointers import ExpiredMessage, StructTuple, nothing
from capnp_rig.wire.encoding.structs import StructCodec
from capnp_rig.wire.errors import EncodeError, NotAnInterface
from capnp_rig.wire.rpc.inline_methods import InlineMethod, ResultsWith
from capnp_rig.wire.rpc.interfaces import Interface
from capnp_rig.wire.rpc.message_encoder import RESULTS_HEAD_WORDS
from capnp_rig.wire.rpc.messages import RemoteError

# Returns what a peer may know of an exception in a method of that name.
Explain = Callable[[str, BaseException], str]
MethodIds = tuple[int, int]


class References:
    """How many connections each object is served on; the last one that ends it closes it."""

    def __init__(self, close: Callable[[Any], None]) -> None:
        self._close = close
        # By `id` of the object, which a connection keeps.
        self._counts: dict[int, int] = {}
        # By `id` as well, of those that live on: they may be given out again.
        self._closed: dict[int, weakref.ref[Any]] = {}

    def add(self, target: Any) -> None:
        """Count one connection more."""
        self._counts[id(target)] = self._counts.get(id(target), 0) + 1

    def drop(self, target: Any) -> None:
        """Count one less; without any, close the object, once, if it has a method `close`."""
        number = id(target)
        count = self._counts.pop(number) - 1
        if count:
            self._counts[number] = count
        elif number not in self._closed and callable(getattr(target, "close", None)):
            # What takes no weak reference is closed again if it is given out again.
            with suppress(TypeError):
                forget = partial(self._forget, number)
                self._closed[number] = weakref.ref(target, forget)
            self._close(target)

    def _forget(self, number: int, _: object) -> None:
        self._closed.pop(number, None)


class Messages(Protocol):
    """What reads and writes the messages of a connection: its `session.Session`."""

    @property
    def frame_limits(self) -> FrameLimits:
        """What a message may hold."""

    def open(self, codec: StructCodec, content: StructTuple | None) -> Any:
        """Return a view of what came."""

    def pack(self, codec: StructCodec, values: Mapping[str, Any]) -> tuple[EncodedTuple, list[Any]]:
        """Return the words of a struct, and a reference for each capability in it."""


class AsyncMethod(NamedTuple):
    """A method that runs in a task; `label` is that of its `BoundMethod`."""

    name: str
    label: str
    call: Callable[[Any], Any]
    open_params: Callable[[StructTuple | None], Any]
    pack_results: Callable[[Any], tuple[EncodedTuple, list[Any]]]
    is_streaming: bool


class Served:
    """An object of ours on one connection; `wire` calls its `inline` methods on the spot.

    `order` is there for those with streaming methods: an async call waits for the streaming one
    before it, and what one of these failed with is what all that come later fail with.
    """

    __slots__ = ("async_methods", "inline", "interfaces", "order", "target")

    def __init__(self, target: Any, interfaces: tuple[Interface, ...]) -> None:
        self.target = target
        self.interfaces = interfaces
        self.inline: MutableMapping[MethodIds, InlineMethod] = {}
        self.async_methods: dict[MethodIds, AsyncMethod] = {}
        self.order: StreamOrder | None = None

    def knows(self, interface_id: int) -> bool:
        """Whether it has an interface, be it inherited."""
        return any(interface_id in each.ids for each in self.interfaces)


class StreamOrder:
    """The latest async streaming call of an object, and what any has failed with."""

    __slots__ = ("error", "last")

    def __init__(self) -> None:
        self.last: Any = None
        self.error: RemoteError | None = None


class Serving:
    """What objects of ours have in common, on all connections of their owner."""

    def __init__(
        self,
        explain: Explain,
        close: Callable[[Any], None],
        *,
        boundary: type[BaseException] = Exception,
        takes_async: bool = True,
        instrument: Callable[[BoundMethod], BoundMethod] = lambda bound: bound,
        count: Callable[[BoundMethod, InlineMethod], InlineMethod] | None = None,
        inline: Inline | None = None,
        frame_limits: FrameLimits = DEFAULT_LIMITS,
    ) -> None:
        """Serve objects; `boundary` is what no method raises beyond here.

        `close` closes one whose last reference is gone. Where there is no event loop,
        `takes_async` is false. `instrument` returns each method as it is called, to watch it;
        `count` each plain one as `wire` calls it, to see what came of it, too.
        `inline` is what plain methods may ask about their calls, None for nothing.
        `frame_limits` are those of all connections, for what is `shared`.
        """
        self.explain = explain
        self.references = References(close)
        self.boundary = boundary
        self._takes_async = takes_async
        self._instrument = instrument
        self._count = count
        self._inline = inline or Inline()
        self._frame_limits = frame_limits

    def served(self, target: Any, session: "Messages") -> Served:
        """Return an object with its methods for one connection.

        Raises:
            EncodeError: It is no object with the methods of an interface.
        """
        kind = type(target).__name__
        try:
            if not interfaces_of(target):
                raise EncodeError(
                    f"expected a capability, or an object with an interface, not {kind}"
                )
            return self._served(target, bind_methods(target), session)
        except (BadServiceError, NotAnInterface) as error:
            raise EncodeError(f"{kind} cannot be served: {error}") from error

    def _served(
        self, target: Any, methods: Sequence[BoundMethod], session: "Messages | None"
    ) -> Served:
        served = Served(target, interfaces_of(target))
        streams = [each for each in methods if each.method.is_streaming]
        if streams:
            served.order = StreamOrder()
        waits = any(each.is_async for each in streams)
        if not self._takes_async and is_async_close(target):
            raise BadServiceError("its close is async; AsyncClient serves it")
        for each in methods:
            ids = each.method.interface_id, each.method.method_id
            if (each.is_async or waits) and not self._takes_async:
                kind = type(target).__name__
                raise BadServiceError(f"{kind}.{each.name} is async; AsyncClient serves it")
            bound = self._instrument(_awaitable(each) if waits and not each.is_async else each)
            if bound.is_async:
                served.async_methods[ids] = self._async_method(bound, session)
            else:
                method = self._inline_method(bound, session)
                if served.order is not None:
                    is_stream = bound.method.is_streaming
                    method = _until_failed(method, served.order, is_stream=is_stream)
                if self._count is not None:
                    method = self._count(bound, method)
                served.inline[ids] = method
        return served

    def shared(self, target: Any) -> Served | None:
        """Return an object as it is served on all connections.

        None if it needs one for each: its methods pass capabilities, or are streams.

        Raises:
            BadServiceError: A method is missing, or cannot be served.
            NotAnInterface: It names no interface.
        """
        bound = bind_methods(target)
        structs = [codec for each in bound for codec in (each.method.params, each.method.results)]
        is_stream = any(each.method.is_streaming for each in bound)
        if is_stream or any(codec.has_capabilities for codec in structs):
            return None
        return self._served(target, bound, None)

    def _async_method(self, bound: BoundMethod, session: "Messages | None") -> AsyncMethod:
        params, results = bound.method.params, bound.method.results
        call = bound.call
        streams = bound.method.is_streaming
        if session is None:
            pack = results.pack
            return AsyncMethod(
                bound.name, bound.label, call, params.open, lambda each: (pack(each), []), streams
            )
        return AsyncMethod(
            bound.name,
            bound.label,
            call,
            lambda content: session.open(params, content),
            lambda each: session.pack(results, each),
            streams,
        )

    def _inline_method(self, bound: BoundMethod, session: "Messages | None") -> InlineMethod:
        """Return a plain method as `wire` calls it on the spot.

        Without a `session` it serves all connections, and has no capabilities.
        """
        method, call, explain, boundary = bound.method, bound.call, self.explain, self.boundary
        inline = self._inline
        if session is not None and (
            method.params.has_capabilities or method.results.has_capabilities
        ):
            return self._inline_with_capabilities(bound, session)
        view, pack = method.params.view, method.results.pack
        limits = self._frame_limits if session is None else session.frame_limits
        most_words = limits.max_words - RESULTS_HEAD_WORDS

        def answer(content: StructTuple | None) -> EncodedTuple | RemoteError:
            if content is None:
                content = nothing()
            results: Any = None
            try:
                results = call(view(content))
                if results is None:
                    return EMPTY_STRUCT
                packed = pack(results)
                if packed[2] > most_words:
                    raise _too_large(packed, limits)
            except boundary as error:
                return RemoteError(explain(method.name, unusable(results) or error))
            else:
                return packed
            finally:
                if inline.context is not None:
                    inline.end()
                # Views that are still held no longer keep the bytes alive.
                message = content[0]
                message.buffer = b""
                message.__class__ = ExpiredMessage

        return answer

    def _inline_with_capabilities(self, bound: BoundMethod, session: "Messages") -> InlineMethod:
        """Do so where params or results may have capabilities."""
        method, call, explain, boundary = bound.method, bound.call, self.explain, self.boundary
        inline = self._inline
        limits = session.frame_limits
        most_words = limits.max_words - RESULTS_HEAD_WORDS

        def answer(content: StructTuple | None) -> EncodedTuple | ResultsWith | RemoteError:
            if content is None:
                content = nothing()
            results: Any = None
            try:
                results = call(session.open(method.params, content))
                if results is None:
                    return EMPTY_STRUCT
                packed, references = session.pack(method.results, results)
                if packed[2] > most_words:
                    raise _too_large(packed, limits)
            except boundary as error:
                return RemoteError(explain(method.name, unusable(results) or error))
            else:
                return ResultsWith(packed, references) if references else packed
            finally:
                if inline.context is not None:
                    inline.end()
                message = content[0]
                message.buffer = b""
                # Those that nobody has taken are released now.
                message.capabilities = ()
                message.__class__ = ExpiredMessage

        return answer


def _until_failed(method: InlineMethod, order: StreamOrder, *, is_stream: bool) -> InlineMethod:
    """Return a plain method of an object whose streams end it."""

    def answer(content: StructTuple | None) -> EncodedTuple | ResultsWith | RemoteError:
        if order.error is not None:
            return order.error
        outcome = method(content)
        if is_stream and isinstance(outcome, RemoteError):
            order.error = outcome
        return outcome

    return answer


def _awaitable(bound: BoundMethod) -> BoundMethod:
    call = bound.call

    async def run(params: Any) -> Any:
        return call(params)

    run.__qualname__ = bound.label
    return BoundMethod(bound.method, run, is_async=True)


def _too_large(results: EncodedTuple, limits: FrameLimits) -> EncodeError:
    return EncodeError(limits.too_large(results[2] + RESULTS_HEAD_WORDS, "the reply"))


def is_async_close(target: Any) -> bool:
    """Whether an object's `close` has to be awaited."""
    return inspect.iscoroutinefunction(getattr(target, "close", None))
