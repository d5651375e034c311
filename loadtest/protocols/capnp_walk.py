"""The way to the capability that is called: the server's interface, and a chain of calls from it.

Without I/O, as `capnp_exchange`, which sends what `take` returns. Each call waits for the answer to
the one before. What the answers have beside the capability that is looked for is given back, as is
each capability on the way once the next one is here; the server's own interface is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from capnp_rig.client.reasons import reason_line
from capnp_rig.client.via import Step
from capnp_rig.objects.errors import ClientError, ProtocolError, RemoteError, remote_error
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.errors import WireError
from capnp_rig.wire.rpc.capability_encoder import encode_release
from capnp_rig.wire.rpc.message_encoder import encode_bootstrap, encode_call, encode_finish
from capnp_rig.wire.rpc.messages import (
    Canceled,
    CapKind,
    Descriptor,
    ImportedCap,
    Results,
    Return,
    content_of,
)
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError

# What a peer counts as held by us.
HELD = {CapKind.SENDER_HOSTED, CapKind.SENDER_PROMISE, CapKind.THIRD_PARTY_HOSTED}
_QUESTION = 0


def releases_of(table: Iterable[Descriptor]) -> Iterator[bytes]:
    """Yield what gives back the capabilities in the table of a message."""
    return (encode_release(each.id, 1) for each in table if each.kind in HELD)


def error_of(answer: Return) -> ClientError:
    """Return an answer without results as the error that the client library has for it."""
    outcome = answer.outcome
    if isinstance(outcome, WireRemoteError):
        return remote_error(outcome)
    if isinstance(outcome, Canceled):
        return ProtocolError("the server cancelled the call")
    return ProtocolError("the server sent the results of the call elsewhere")


def broken_by(step: Step, error: ClientError) -> ClientError:
    """Return the error of a chain whose `step` was answered with `error`."""
    text = f"via {step.method.name}: {reason_line(error)}"
    return type(error)(text, error.type) if isinstance(error, RemoteError) else type(error)(text)


class _Table(tuple[Descriptor, ...]):
    """The capabilities of a message, of which a view has the index."""

    __slots__ = ()

    def field(self, index: int, _interface: Any) -> int | None:
        """Return what a view has for a capability, None for one that is null."""
        return None if self[index].kind == CapKind.NONE else index


class Walk:
    """Asks for the server's interface, and makes the calls that lead on from there.

    `target` is where they lead, None until it is known. `walk_ns` is how long the calls took, by
    the times at which the answers came; None without calls, and before the last answer.
    """

    def __init__(self, chain: Sequence[tuple[Step, EncodedTuple]]) -> None:
        self.target: ImportedCap | None = None
        self.walk_ns: int | None = None
        self._chain = list(chain)
        self._here: ImportedCap | None = None
        self._begun_ns = 0
        self._taken = 0

    def begin(self) -> bytes:
        """Return the first message."""
        return encode_bootstrap(_QUESTION)

    @property
    def awaited(self) -> str:
        """The call of the chain whose answer is waited for, in words; empty without any."""
        if self._here is None or self.target is not None:
            return ""
        return f"via {self._chain[self._taken][0].method.name}"

    def take(self, answer: Return, now_ns: int) -> list[Buffer]:
        """Take the answer to what was sent last; return what to send now.

        Raises:
            ClientError: The server gave no interface, or a call of the chain led nowhere.
        """
        if self._here is None:
            self._here, self._begun_ns = _bootstrapped(answer), now_ns
            out: list[Buffer] = [encode_finish(_QUESTION, release_result_caps=False)]
        else:
            out = self._step(answer)
        if self._taken < len(self._chain):
            step, params = self._chain[self._taken]
            method = step.method
            ids = method.interface_id, method.method_id
            return [*out, *encode_call(_QUESTION, self._here, *ids, params)]
        self.target = self._here
        self.walk_ns = now_ns - self._begun_ns if self._chain else None
        return out

    def _step(self, answer: Return) -> list[Buffer]:
        """Go where an answer leads."""
        step, _ = self._chain[self._taken]
        if not isinstance(answer.outcome, Results):
            raise broken_by(step, error_of(answer))
        table = answer.outcome.cap_table
        index = _index_of(step, answer.outcome)
        if table[index].kind not in HELD:
            raise ProtocolError(f"via {step.method.name}: {step.place} is no capability of its own")
        out: list[Buffer] = []
        if not answer.no_finish_needed:
            out.append(encode_finish(_QUESTION, release_result_caps=False))
        out += releases_of(each for at, each in enumerate(table) if at != index)
        if self._taken and self._here is not None:
            out.append(encode_release(self._here.import_id, 1))
        self._here = ImportedCap(table[index].id)
        self._taken += 1
        return out


def _index_of(step: Step, results: Results) -> int:
    """Return the index of the capability in the table of results."""
    try:
        content = content_of(results.content)
        if content is not None:
            content[0].capabilities = _Table(results.cap_table)
        index: int = step.capability_in(step.method.results.open(content))
    except WireError as error:
        raise ProtocolError(f"via {step.method.name}: unreadable reply: {error}") from error
    return index


def _bootstrapped(answer: Return) -> ImportedCap:
    if not isinstance(answer.outcome, Results):
        raise error_of(answer)
    table = answer.outcome.cap_table
    if len(table) != 1 or table[0].kind not in HELD:
        raise ProtocolError("the server offers no bootstrap interface")
    return ImportedCap(table[0].id)
