"""Which endpoints a channel has: as they were given, or as a callable says now."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from capnp_rig.objects.errors import UsageError
from capnp_rig.rigcli.address import Address, AddressError, parse_address, parse_addresses

Endpoints = str | Address | Iterable[str | Address]
# Returns the present endpoints; for an `AsyncChannel` it may be a coroutine function.
Discover = Callable[[], Endpoints | Awaitable[Endpoints]]

REFRESH_S = 10.0
_log = logging.getLogger("capnp_rig.client")
# Failures to connect may ask for the endpoints sooner, but no more often than so.
_SOONEST_S = 1.0


def read_endpoints(endpoints: Any) -> tuple[Address, ...]:
    """Return addresses as they may be given: text with commas, or a list.

    Raises:
        AddressError: One is no address, or comes twice.
        UsageError: It is something else.
    """
    if isinstance(endpoints, Address):
        return (endpoints,)
    if isinstance(endpoints, str):
        return parse_addresses(endpoints)
    if not isinstance(endpoints, Iterable) or isinstance(endpoints, (bytes, bytearray)):
        raise UsageError(f"endpoints are addresses or a callable, not {endpoints!r}")
    addresses: list[Address] = []
    for each in endpoints:
        if not isinstance(each, (str, Address)):
            raise UsageError(f"an address is text as in 'host:5000', not {each!r}")
        address = parse_address(each) if isinstance(each, str) else each
        if address in addresses:
            raise AddressError(f"the endpoint {address} is there twice")
        addresses.append(address)
    return tuple(addresses)


class Discovery:
    """The source of a channel's endpoints, and when to ask it."""

    def __init__(self, endpoints: Endpoints | Discover, refresh_s: float) -> None:
        """Take a list, or a callable that is asked again after `refresh_s` seconds.

        Raises:
            AddressError: An address of the list is none, or comes twice.
            UsageError: The list is empty, it is neither, or `refresh_s` is not above 0.
        """
        if not refresh_s > 0:
            raise UsageError(f"refresh_s is more than 0 seconds, not {refresh_s}")
        self._refresh_s = refresh_s
        # Those that never change.
        self.fixed: tuple[Address, ...] = ()
        self._discover: Discover | None = None
        if callable(endpoints):
            self._discover = endpoints
        else:
            self.fixed = read_endpoints(endpoints)
            if not self.fixed:
                raise UsageError("a channel has at least one endpoint")
        self.reset()

    def reset(self) -> None:
        """Be due at once, if ever."""
        self._asked_s = float("-inf")
        self.due_s = float("inf" if self._discover is None else "-inf")

    def ask(self) -> Any:
        """Return what the callable returns."""
        assert self._discover is not None
        return self._discover()

    def asks(self) -> None:
        """Take note that it is being asked: it is not due until `asked`."""
        self.due_s = float("inf")

    def asked(self, now_s: float) -> None:
        """Take note that it was asked."""
        self._asked_s = now_s
        self.due_s = now_s + self._refresh_s

    def hurry(self) -> None:
        """Ask again soon: an endpoint could not be reached."""
        if self.due_s < float("inf"):
            self.due_s = min(self.due_s, self._asked_s + _SOONEST_S)

    def failed(self, error: Exception) -> str:
        """Return, and log, what the failure of the callable means."""
        reason = f"the endpoints are not known: {type(error).__name__}: {error}"
        _log.warning("%s", reason)
        return reason
