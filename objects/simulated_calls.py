"""Calls without a server, for the tests of a service."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from capnp_rig.objects.call_context import CURRENT, CallContext
from capnp_rig.objects.call_peer import CallPeer

LOGGER = logging.getLogger("capnp_rig.calls")
_PEER = CallPeer("127.0.0.1:1", "127.0.0.1", 1)
_numbers = itertools.count(1)


@dataclass
class _Simulated:
    """The connection of a call that nobody made."""

    peer: CallPeer
    is_left: bool
    drain_remaining_s: float | None

    def next_call_id(self) -> str:
        """Return a name as a server would."""
        return f"0-1-{next(_numbers)}"

    def write(self, level: str, context: CallContext, text: str, fields: dict[str, object]) -> None:
        """Log a line, for caplog to find."""
        LOGGER.log(
            getattr(logging, level.upper()),
            text,
            exc_info=fields.pop("traceback", None),  # type: ignore[arg-type]
            extra={"call": context.call_id, "fields": fields},
        )


@contextmanager
def simulated_call(
    peer: CallPeer = _PEER, *, is_cancelled: bool = False, drain_remaining_s: float | None = None
) -> Iterator[CallContext]:
    """Run what is within as a method that a server calls: for tests of a service.

    The lines of its log go to the logger ``capnp_rig.calls`` of Python's `logging`.

    Examples:
        >>> with simulated_call(CallPeer("unix:", uid=1000)):  # doctest: +SKIP
        ...     assert Accounts().read(params) == {"balance": 7}
    """
    context = CallContext(_Simulated(peer, is_cancelled, drain_remaining_s))
    token = CURRENT.set(context)
    try:
        yield context
    finally:
        CURRENT.reset(token)
