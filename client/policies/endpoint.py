"""An endpoint as policies see it."""

from capnp_rig.rigcli.address import Address


class Endpoint:
    """A server that a channel may call, by its address, and what is known of it."""

    __slots__ = ("address", "calls", "failures", "in_flight", "latency_s", "measured_s")

    def __init__(self, address: Address) -> None:
        self.address = address
        # Attempts that are under way, have begun, have failed.
        self.in_flight = 0
        self.calls = 0
        self.failures = 0
        # The estimate of a `Balance`, None before the first answer, and when it was made.
        self.latency_s: float | None = None
        self.measured_s = 0.0
