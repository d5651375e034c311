"""What a load generator sends, and what it must get back, for any method of any schema.

`load_workload` checks all that a user gave, once, and a `Workload` then makes the requests of
each connection: params that are packed already, and a check for the results. There are three
kinds:

- **texts**, for the tutorial's ``MessageStream.read`` without params (`workload.bodies`): each
  with a nonce of its own, so that crossed replies are noticed;
- **bytes**, for ``Binary.reverse``, with nonces as well;
- **params** as JSON (`workload.templated_params`), sent line by line, with templates that each
  request fills in (`loadtest.workload.templates`), and fields that the results must have
  (`loadtest.workload.expectations`). Without those, replies to a line without templates must
  equal the first one (`loadtest.workload.checks`); what nobody compares is in `unchecked`.

The calls go to the interface that the server offers, or to the capability to which a chain of
calls leads (`loadtest.workload.chains`).
"""

import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, TypeVar

from capnp_rig.client import params_argument
from capnp_rig.client.named_methods import UnknownName, choose, load_interfaces
from capnp_rig.client.via import ChainError, Step, compile_chain
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.tally import FirstReply
from capnp_rig.loadtest.workload.bodies import (
    NONCE_BYTES,
    WRONG_REPLY,
    Bodies,
    random_bytes,
    random_texts,
)
from capnp_rig.loadtest.workload.chains import CallChain, read_chain
from capnp_rig.loadtest.workload.checks import (
    Anything,
    Check,
    EqualToFirst,
    FieldsOf,
    ReverseOf,
    Watched,
    readable,
)
from capnp_rig.loadtest.workload.expectations import (
    Expectation,
    compile_expectation,
    fields_left_out,
    paths_without_values,
    without_values,
)
from capnp_rig.loadtest.workload.templated_params import (
    Params,
    Slot,
    Struct,
    params_words,
    read_struct,
    too_large,
)
from capnp_rig.loadtest.workload.templates import WIDEST, MakeSource, Source, Values
from capnp_rig.schema import SchemaError, load_schema, message
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, MESSAGE_BYTES, FrameLimits
from capnp_rig.wire.encoding.structs import StructCodec
from capnp_rig.wire.json_values.reading import ParamsError, read_items
from capnp_rig.wire.rpc.interfaces import Interface, Method, compile_interface

TEXT, BINARY = PAYLOAD_KINDS = ("text", "binary")

_RIG_SCHEMA = "message.capnp"
_BINARY_SCHEMA = "binary.capnp"
_TUTORIAL = compile_interface(message.MessageStream).methods["read"]


class WorkloadError(ValueError):
    """A workload cannot be made; the message names the place and says what to do, in one line."""


def message_limits(max_message_bytes: int) -> FrameLimits:
    """Return what a message of a load may hold."""
    return FrameLimits.of_message(max_message_bytes, "--max-message of the load")


@dataclass(frozen=True, slots=True)
class WorkloadConfig:
    """What to call with which params, in plain values, ready for JSON.

    - `schema` is the path of a ``.capnp`` file; None is the rig's ``message.capnp``, which also
      stands for any file with its id.
    - `import_path` has the folders in which its imports are searched, None for the standard ones.
    - `interface` is a name in it, as "Foo" or "Outer.Foo"; None is the only one it has.
    - `method` is a name in that, an inherited one too; None is the only one.
    - `via` is a chain of calls, as `client.via` reads it, to a capability of the server's, which
      then has the method; `interface` names where it starts or what it ends at. With `pipeline`
      it is part of each call, else it is walked once per connection.
    - `params` is a JSON object, or one per line. None means generated texts for the tutorial's
      method, all fields at their defaults for any other.
    - `expect` has the fields that the results must have: one object, or as many as `params`.
      None: the tutorial's method must reverse the content, any other must answer the same params
      as it did the first time; what templates are answered is not compared.

    For the tutorial's method without params:

    - `payload_bytes` is the size of each text in UTF-8, nonce included;
    - `text`, where given, is sent each time, behind a nonce;
    - `corpus` is a file's content, whose lines are sent in turn, behind a nonce each;
    - `seed` is that of the generated texts, and of the UUIDs in params;
    - `payload_kind` ``binary`` calls ``Binary.reverse`` with random bytes instead.

    No message of a call or its reply has more than `max_message_bytes`; it is for the capnp stack.
    """

    schema: str | None = None
    import_path: Sequence[str] | None = None
    interface: str | None = None
    method: str | None = None
    params: str | None = None
    expect: str | None = None
    payload_bytes: int = 32
    text: str = ""
    corpus: str | None = None
    seed: int = 1
    payload_kind: str = TEXT
    via: str | None = None
    pipeline: bool = False
    max_message_bytes: int = MESSAGE_BYTES

    @property
    def frame_limits(self) -> FrameLimits:
        """What a message may hold."""
        return message_limits(self.max_message_bytes)

    @property
    def has_texts(self) -> bool:
        """Whether the texts to send are given, so that none are generated."""
        return bool(self.text) or self.corpus is not None


@dataclass(eq=False, slots=True)
class Request:
    """One request; equal to itself alone.

    `params` are packed, as `StructCodec.pack` does; `check` compares the view of the results.
    `chain` has the params of the calls that are pipelined before it, where they are its own.
    """

    params: EncodedTuple
    check: Check
    chain: Sequence[EncodedTuple] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """The calls of one process of a run.

    Where `is_repeating`, the requests of a connection are the same objects again and again, few
    and small enough to keep an encoded frame and a learned reply for each. Else each is new:
    made from templates, or too large or too many to be kept; `params` then share their parts.
    `unchecked` says what of the replies no check compares; of none of them if not `is_compared`.
    `firsts` fills with the first replies that others are compared with (`stats.first_replies`).
    `chain` leads to the capability that is called, with no calls where that is the server's own.
    """

    interface: Interface
    method: Method
    label: str
    is_repeating: bool
    _start: Callable[[int, int], Iterator[Request]]
    unchecked: tuple[Reason, ...] = ()
    is_compared: bool = True
    firsts: dict[str, FirstReply] = field(default_factory=dict)
    chain: CallChain = field(default_factory=CallChain)
    frame_limits: FrameLimits = DEFAULT_LIMITS

    def requests(self, user: int, in_flight: int) -> Iterator[Request]:
        """Yield the requests of one connection without end.

        `user` is a number that no other connection of the run has, `in_flight` how many calls
        the connection has under way at most.
        """
        return self._start(user, in_flight)

    def walk(self, user: int) -> list[tuple[Step, EncodedTuple]]:
        """Return the calls, with their params, that a connection makes before its requests."""
        chain = self.chain
        if chain.is_pipelined or not chain.steps:
            return []
        return list(zip(chain.steps, chain.pack(next(chain.values(user))), strict=True))

    def watched(
        self, see: Callable[[Any], object], calls: int, *, compares: bool = True
    ) -> "Workload":
        """Return the same calls; `see` gets the results of the first ones of each connection.

        Without `compares` nothing is compared of these.
        """

        def start(user: int, in_flight: int) -> Iterator[Request]:
            requests = self._start(user, in_flight)
            for request in islice(requests, calls):
                check = request.check if compares else _ANYTHING
                yield replace(request, check=Watched(check, see))
            yield from requests

        return replace(self, _start=start)

    def text_of(self, request: Request) -> str:
        """Return the params of a request as JSON, for people."""
        return _text_of(self.method, request.params)


def read_params_argument(text: str) -> str:
    """Return the content of the file that "@path" names, and any other text as it is.

    Raises:
        WorkloadError: The file cannot be read, is too large, not UTF-8, or a packed message.
    """
    try:
        return params_argument.read_params_argument(text)
    except ParamsError as error:
        raise WorkloadError(str(error)) from error


def read_corpus(path: str) -> str:
    """Return the content of a corpus file.

    Raises:
        WorkloadError: The file cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeError as error:
        raise WorkloadError(f"cannot read {path}: it is not UTF-8 text") from error


def load_workload(
    config: WorkloadConfig,
    *,
    first: int = 0,
    step: int = 1,
    clock: Callable[[], int] = time.time_ns,
) -> Workload:
    """Return the workload that `config` asks for, checked in full.

    ``{{i}}`` counts `first`, `first + step` and so on over all connections of this process;
    `clock` is that of ``{{time_ns}}``.

    Raises:
        WorkloadError: The config has a mistake, or names a file that has one.
    """
    if config.pipeline and config.via is None:
        raise WorkloadError("pipeline makes the chain of via part of each call: give via as well")
    if config.payload_kind == BINARY:
        return _binary_workload(config)
    source = partial(Source, first=first, step=step, seed=config.seed, clock=clock)
    try:
        interface, method, chain = _find(config, source)
        label = f"{interface.name}.{method.name}"
        if config.params is None and _is_tutorial(method):
            is_repeating, start = _behind(chain, *_texts(config, method))
            return Workload(
                *(interface, method, label, is_repeating, start),
                chain=chain,
                frame_limits=config.frame_limits,
            )
        firsts: dict[str, FirstReply] = {}
        lines = _read_lines(config, method, firsts, chain)
        is_repeating, start = _lines(lines, source, chain)
    except (SchemaError, UnknownName, ParamsError) as error:
        raise WorkloadError(" ".join(str(error).split())) from error
    return Workload(
        interface,
        method,
        label,
        is_repeating,
        start,
        _unchecked(lines, method.results, chain),
        any(line.compares for line in lines),
        firsts,
        chain,
        config.frame_limits,
    )


# --- what is called -------------------------------------------------------------------------


def _find(config: WorkloadConfig, make_source: MakeSource) -> tuple[Interface, Method, CallChain]:
    """Return the interface, the method, and what leads there."""
    path = config.schema or _RIG_SCHEMA
    if config.import_path and config.schema is None:
        raise WorkloadError("the import path (-I) goes with a schema: leave it out")
    interfaces = load_interfaces(path, config.import_path or ())
    if config.via is None:
        chosen = choose("interface", config.interface, interfaces, Path(path).name)
        chain = CallChain()
    else:
        chosen, chain = _chain(config, interfaces, make_source)
    interface = compile_interface(chosen)
    name = config.interface if config.via is None and config.interface else interface.name
    method = choose("method", config.method, interface.methods, name)
    _refuse_capabilities(f"{name}.{method.name}", method.params)
    return interface, method, chain


def _chain(
    config: WorkloadConfig, modules: dict[str, Any], make_source: MakeSource
) -> tuple[Any, CallChain]:
    """Return the interface of the capability to which a chain leads, and the chain."""
    assert config.via is not None
    try:
        compiled = compile_chain(config.via, modules, config.interface)
    except ChainError as error:
        raise WorkloadError(f"via: {error}") from error
    for step in compiled.steps:
        _refuse_capabilities(f"via: {step.method.name}", step.method.params)
    return compiled.end, read_chain(
        compiled, make_source, config.frame_limits, is_pipelined=config.pipeline
    )


def _is_tutorial(method: Method) -> bool:
    ids = _TUTORIAL.interface_id, _TUTORIAL.method_id
    return (method.interface_id, method.method_id) == ids


def _refuse_capabilities(label: str, params: StructCodec) -> None:
    """Refuse a method that takes what a generator cannot give.

    Deeper inside, such a field may well be optional: it is refused if the params name it.
    """
    for name, which in without_values(params).items():
        what = "a capability" if which == "interface" else "an AnyPointer"
        raise WorkloadError(
            f"{label} takes {what}, {name}, which no JSON gives: choose another method"
        )


# --- texts ----------------------------------------------------------------------------------

_Start = Callable[[int, int], Iterator[Request]]


# Callers may keep a frame and a reply for each request of a cycle, in every connection: at most
# 1 MiB of each, or as much as is in flight twice. That is a body of 4 KiB and what it stands in.
_KEPT_WORDS = 520
_KEPT_REQUESTS = 256


def read_contents(config: WorkloadConfig, most_bytes: int) -> list[tuple[bytes, bytes]]:
    """Return the bodies that a config asks for, each with its reverse.

    Generated ones fill no more than `most_bytes` and one with their nonce.

    Raises:
        WorkloadError: They cannot be sent.
    """
    if config.payload_bytes < 1:
        raise WorkloadError(f"the payload must be at least 1 byte, not {config.payload_bytes}")
    size = min(config.payload_bytes, most_bytes + 1)
    if config.payload_kind == BINARY:
        if config.has_texts:
            raise WorkloadError("text and corpus are texts: leave them out of a binary payload")
        return [(body, body[::-1]) for body in random_bytes(size, seed=config.seed)]
    if config.text and config.corpus is not None:
        raise WorkloadError("text and corpus exclude each other: give one of them")
    if config.text:
        texts = [config.text]
    elif config.corpus is not None:
        texts = [line for line in config.corpus.splitlines() if line]
    else:
        texts = random_texts(size, seed=config.seed)
    if not texts:
        raise WorkloadError("no text to send")
    try:
        return [(text.encode(), text[::-1].encode()) for text in texts]
    except UnicodeEncodeError as error:
        raise WorkloadError(f"a text is not valid Unicode: {error.reason}") from error


class _Body:
    """A body in the params of a call, encoded but for the nonce in front of it."""

    __slots__ = ("_field", "_head", "_pack", "_reverse", "_sizes", "_tail", "words")

    def __init__(
        self, pack: Callable[[bytes], EncodedTuple], field: str, content: bytes, reverse: bytes
    ) -> None:
        nonce = b"0" * NONCE_BYTES
        self._pack, self._field, self._reverse = pack, field, reverse
        self._sizes, parts, self.words = pack(nonce + content)
        self._head, _, self._tail = b"".join(parts).partition(nonce)

    def behind(self, nonce: bytes) -> Request:
        """Return the request that sends the body behind a nonce; a short one is sent alone."""
        if len(nonce) == NONCE_BYTES:
            params: EncodedTuple = (self._sizes, [self._head + nonce, self._tail], self.words)
        else:
            params = self._pack(nonce)
        return Request(params, ReverseOf(self._field, self._reverse, nonce[::-1]))


def _texts(config: WorkloadConfig, method: Method) -> tuple[bool, _Start]:
    if config.expect is not None:
        raise WorkloadError("expect goes with params: generated texts have replies of their own")
    pack = method.params.pack
    return _bodies(config, lambda data: pack({"request": {"content": data.decode()}}), "chunk")


def _bodies(
    config: WorkloadConfig, pack: Callable[[bytes], EncodedTuple], field: str
) -> tuple[bool, _Start]:
    """Return the requests that `pack` makes of bodies; the results have the reverse in `field`."""
    # Before it is generated.
    limits = config.frame_limits
    most_words = params_words(limits)
    if config.payload_bytes > 8 * most_words:
        raise WorkloadError(f"the payload: {too_large(config.payload_bytes, limits)}")
    contents = read_contents(config, 8 * most_words)
    bodies = [_Body(pack, field, content, reverse) for content, reverse in contents]
    words = max(body.words for body in bodies)
    if words > most_words:
        what = "text" if config.has_texts else "payload"
        raise WorkloadError(f"the {what}: {too_large(8 * words, limits)}")
    requests = Bodies(
        bodies,
        payload_bytes=config.payload_bytes,
        is_corpus=config.has_texts,
        is_repeating=words <= _KEPT_WORDS and len(bodies) <= _KEPT_REQUESTS,
    )
    if requests.is_repeating:
        return True, lambda user, in_flight: cycle(requests.lap(user, in_flight))
    return False, requests.lap


def _binary_workload(config: WorkloadConfig) -> Workload:
    given = [name for name in _NOT_BINARY if getattr(config, name)]
    if given:
        raise WorkloadError(f"{given[0]} does not go with a binary payload: leave it out")
    interface = compile_interface(load_schema(_BINARY_SCHEMA).Binary)
    method = interface.methods["reverse"]
    pack = method.params.pack
    is_repeating, start = _bodies(config, lambda data: pack({"data": data}), "data")
    return Workload(
        *(interface, method, f"{interface.name}.{method.name}", is_repeating, start),
        frame_limits=config.frame_limits,
    )


_NOT_BINARY = (
    *("schema", "import_path", "interface", "method", "params", "expect", "text", "corpus"),
    "via",
)


# --- params ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """An object of the params, and what its replies must be.

    That is what `expectation` says of `expected`, else what `first` got; of neither, anything.
    """

    params: Params
    names: frozenset[str]
    expected: Mapping[str, Any] = field(default_factory=dict)
    expectation: Expectation | None = None
    first: EqualToFirst | None = None
    left_out: tuple[str, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether anything of the replies is compared."""
        return bool(self.expected) or self.first is not None

    def request(self, values: Values) -> Request:
        """Return the request that has these values, in 1 to 2 µs on top of packing."""
        check: Check = self.first or _ANYTHING
        if self.expectation is not None:
            check = FieldsOf(self.expectation, self.expected, values)
        return Request(self.params.pack(values), check)


_ANYTHING = Anything()


def _read_lines(
    config: WorkloadConfig, method: Method, firsts: dict[str, FirstReply], chain: CallChain
) -> list[_Line]:
    if config.has_texts:
        given = "text" if config.text else "corpus"
        raise WorkloadError(f"{given} is for MessageStream.read without params: leave it out")
    params = _read("params", config.params, method.params.schema, method)
    if config.expect is None:
        return [_line(method, each, firsts, chain, config.frame_limits) for each in params]
    expected = _read("expect", config.expect, method.results.schema, method)
    if len(expected) not in {1, len(params)}:
        raise WorkloadError(
            f"expect has {len(expected)} lines, params {len(params)}: give one, or as many"
        )
    expectations = [compile_expectation(each) for each in expected]
    # One that goes with all lines is taken for each.
    return [
        _Line(
            Params(method.params, each, config.frame_limits),
            each.names | fields.names,
            fields.fields,
            expectation,
            left_out=fields_left_out(fields),
        )
        for each, fields, expectation in zip(
            params, cycle(expected), cycle(expectations), strict=False
        )
    ]


def _line(
    method: Method,
    params: Struct,
    firsts: dict[str, FirstReply],
    chain: CallChain,
    limits: FrameLimits,
) -> _Line:
    """Return a line of which nothing is said to be expected."""
    packed = Params(method.params, params, limits)
    if _is_tutorial(method):
        chunk = _reversed_content(params)
        return _Line(packed, params.names, {"chunk": chunk}, _expect_chunk(chunk))
    has_values = len(without_values(method.results)) < len(method.results.fields)
    if params.names or chain.names or not has_values:
        return _Line(packed, params.names)
    request = partial(_text_of, method, packed.pack(WIDEST))
    return _Line(packed, params.names, first=EqualToFirst(params.place, request, firsts))


def _text_of(method: Method, params: EncodedTuple) -> str:
    sizes, parts, words = params
    # As `StructCodec.to_bytes`: a struct without size points at itself.
    head = struct.pack("<IIII", 0, words + 1, 0 if sizes else 0xFFFFFFFC, sizes)
    return readable(method.params.from_bytes(b"".join([head, *parts])))


def _lines(
    lines: Sequence[_Line], make_source: MakeSource, chain: CallChain
) -> tuple[bool, _Start]:
    names = chain.names_per_call.union(*(each.names for each in lines))
    if names:
        return False, partial(_templated_requests, lines, make_source(names), chain)
    return _constant_requests([line.request(WIDEST) for line in lines])


def _behind(chain: CallChain, is_repeating: bool, start: _Start) -> tuple[bool, _Start]:
    """Return requests without templates, behind a chain that may have some."""
    if not chain.names_per_call:
        return is_repeating, start

    def requests(user: int, in_flight: int) -> Iterator[Request]:
        for request, values in zip(start(user, in_flight), chain.values(user), strict=False):
            yield replace(request, chain=chain.pack(values))

    return False, requests


def _unchecked(
    lines: Sequence[_Line], results: StructCodec, chain: CallChain
) -> tuple[Reason, ...]:
    """Return what of the replies nobody compares."""
    no_values = paths_without_values(results)
    if len(without_values(results)) == len(results.fields):
        return (Reason(ReasonCode.NO_VALUES),)
    idle = [line for line in lines if not line.compares]
    reasons = []
    if any(line.expectation is not None for line in idle):
        reasons.append(Reason(ReasonCode.EMPTY_EXPECT))
    elif idle:
        some = f"{len(idle)} of {len(lines)} lines of " if len(idle) < len(lines) else ""
        what = "calls behind a --via" if chain.names else f"{some}params"
        reasons.append(Reason.of(ReasonCode.NO_EXPECT, what=f"{what} with templates"))
    left_out = dict.fromkeys(name for line in lines if line.expected for name in line.left_out)
    if left_out:
        reasons.append(Reason.of(ReasonCode.FIELDS_LEFT_OUT, fields=", ".join(left_out)))
    if no_values and any(line.first is not None for line in lines):
        reasons.append(Reason.of(ReasonCode.CAPABILITIES, fields=", ".join(no_values)))
    return tuple(reasons)


def _read(what: str, text: str | None, schema: Any, method: Method) -> list[Struct]:
    name = f"the {'params' if what == 'params' else 'results'} of {method.name}"
    items = read_items("{}" if text is None else text, what)
    return [read_struct(item, schema, name) for item in items]


def _reversed_content(params: Struct) -> Slot | bytes:
    """Return the tutorial's reply to these params."""
    content = params.fields.get("request", {}).get("content", "")
    if isinstance(content, Slot):
        return Slot(lambda values: content.render(values)[::-1].encode())
    text: str = content
    return text[::-1].encode()


def _expect_chunk(chunk: Slot | bytes) -> Expectation:
    def fault(values: Values, results: Any) -> str | None:
        expected = chunk.render(values) if isinstance(chunk, Slot) else chunk
        return None if bytes(results.chunk) == expected else WRONG_REPLY

    return fault


_Item = TypeVar("_Item")


def _in_turn(items: Sequence[_Item], user: int) -> Iterator[_Item]:
    """Yield the items again and again; not all connections start with the same one."""
    return (items[number % len(items)] for number in count(user))


def _constant_requests(requests: Sequence[Request]) -> tuple[bool, _Start]:
    if len(requests) > _KEPT_REQUESTS or any(made.params[2] > _KEPT_WORDS for made in requests):
        return False, lambda user, _in_flight: (
            Request(made.params, made.check) for made in _in_turn(requests, user)
        )
    return True, lambda user, _in_flight: _in_turn(requests, user)


def _templated_requests(
    lines: Sequence[_Line], source: Source, chain: CallChain, user: int, _in_flight: int
) -> Iterator[Request]:
    pairs = zip(_in_turn(lines, user), source.values(user), strict=False)
    if not chain.names_per_call:
        return (line.request(values) for line, values in pairs)
    return (replace(line.request(values), chain=chain.pack(values)) for line, values in pairs)
