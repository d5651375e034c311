"""Deliveries: calls that wait no longer, and the events that are ready."""

from collections.abc import Generator, Sequence
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import detached
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.calls import PendingCall
from capnp_rig.wire.rpc.capabilities import CapabilityTable
from capnp_rig.wire.rpc.events import (
    Answered,
    Called,
    Cancelled,
    Event,
    Failed,
    Limits,
    Unreadable,
)
from capnp_rig.wire.rpc.incoming_calls import IncomingCalls
from capnp_rig.wire.rpc.inline_methods import ResultsWith
from capnp_rig.wire.rpc.message_encoder import RESULTS_HEAD_WORDS
from capnp_rig.wire.rpc.messages import RemoteError
from capnp_rig.wire.rpc.tables import Delivery


class Deliveries(IncomingCalls):
    """What is handed out of `_ready`, in its order."""

    __slots__ = ("inline_calls",)

    def __init__(self, limits: Limits, bootstrap: Any) -> None:
        super().__init__(limits, bootstrap)
        # How many calls were answered on the spot, exact whenever an event is handed out.
        self.inline_calls = 0

    def _drain(self) -> Generator[Event, None, tuple[int, int]]:
        """Deliver what is ready: events, and calls to objects of ours.

        Return how many of these were answered on the spot, and the words of their results.
        """
        ready = self._ready
        answered = words = 0
        while ready:
            event = ready.popleft()
            if isinstance(event, (Answered, Failed, Unreadable)):
                if self._is_reported(event):
                    yield event
                continue
            if isinstance(event, PendingCall):
                # It may have been answered meanwhile.
                if event.is_running:
                    yield Cancelled(event.id)
                continue
            if not isinstance(event, Delivery):
                yield event
                continue
            node, call = event.node, event.call
            if call.is_finished and not call.is_awaited:
                self.fail(call, RemoteError("the call was cancelled"))
                continue
            # They are the owner's now, and so are the capabilities in them.
            params, call.params = call.params, None
            if params is not None and call.capabilities:
                params[0].capabilities = CapabilityTable.of(call.capabilities)
            else:
                self.drop_all(call.capabilities)
            call.capabilities = ()
            call.is_running = True
            self._note, call.note = call.note, None
            method = node.inline.get((call.interface_id, call.method_id))
            if method is None:
                yield Called(call.id, call.interface_id, call.method_id, params, node.target)
                continue
            words += self._answer_call(call, method(params))
            self.inline_calls += 1
            answered += 1
        return answered, words

    def _answer_call(
        self, call: PendingCall, outcome: EncodedTuple | ResultsWith | RemoteError
    ) -> int:
        """Answer a call in the table as an inline method says; return the words of its results."""
        if isinstance(outcome, RemoteError):
            self.fail(call, outcome)
            return 0
        capabilities: Sequence[Any] = ()
        if isinstance(outcome, ResultsWith):
            capabilities, outcome = outcome.capabilities, outcome.results
        results = outcome
        nodes = self.hold_each(capabilities)
        try:
            if results[2] + RESULTS_HEAD_WORDS > self._max_words:
                raise EncodeError(self._too_large(results[2] + RESULTS_HEAD_WORDS))  # noqa: TRY301
            self._succeed(call, results, nodes)
        except EncodeError as error:
            self.fail(call, RemoteError(str(error)))
        finally:
            self.drop_all(nodes)
        return results[2] + RESULTS_HEAD_WORDS

    def _detach_ready(self) -> None:
        """Copy what is ready and not handed out yet: the data that it is in may change now."""
        for event in self._ready:
            if isinstance(event, Delivery) and event.call.params is not None:
                event.call.params = detached(event.call.params)
            elif isinstance(event, Answered) and event.content is not None:
                event.content = detached(event.content)
