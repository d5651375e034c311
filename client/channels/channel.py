"""What both channels are made of: methods, endpoints, policies, pool."""

from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack

from capnp_rig.client.channels.discovery import REFRESH_S, Discover, Discovery, Endpoints
from capnp_rig.client.channels.methods import Methods
from capnp_rig.client.channels.pool import EndpointStatus, Pool
from capnp_rig.client.channels.pooled import IDLE_S, Sizes
from capnp_rig.client.connecting import secured
from capnp_rig.client.message_limit import MESSAGE_BYTES, limits_of
from capnp_rig.client.policies import default_stack
from capnp_rig.client.policies.policy import Attempt, Policy
from capnp_rig.objects.streams import STREAM_WINDOW_BYTES
from capnp_rig.objects.timeouts import CONNECT_TIMEOUT_S, check_timeout
from capnp_rig.objects.typed_calls import Interface_co, Named, Typed

if TYPE_CHECKING:
    from capnp_rig.client.tls import TlsArgument


class ChannelOptions(TypedDict, total=False):
    """How a channel makes and keeps connections. All of it is optional.

    Attributes:
        size: At most so many connections to an endpoint. Another one is made when all are busy.
        calls_per_connection: At most so many calls in flight on each; more wait.
        eager: Make `size` connections to each endpoint at once, and keep them. By default the first
            call connects to every endpoint.
        wait_for_ready: Where no endpoint can be reached, wait until the deadline. By default a call
            fails once each endpoint was tried in vain, and is retried as `Retry` says.
        connect_timeout_s: For a connection and the server's first answer on it, 1 s by default.
        idle_s: A connection without calls is closed after so long, 300 s by default.
        max_age_s: A connection is replaced after so long, give or take 10 %; by default never.
        refresh_s: A callable is asked for the endpoints again after so long, 10 s by default; a
            second after the last time if an endpoint cannot be reached.
        stream_window_bytes, max_message_bytes: As for a client.
        tls: As for a client. The files are loaded once, for all connections.
    """

    size: int
    calls_per_connection: int
    eager: bool
    wait_for_ready: bool
    connect_timeout_s: float
    idle_s: float
    max_age_s: float | None
    refresh_s: float
    stream_window_bytes: int
    max_message_bytes: int
    tls: "TlsArgument"


class AnyChannel(Typed[Interface_co]):
    """The part of a channel that does not wait."""

    interface: ClassVar[Any] = None
    idempotent: ClassVar[Collection[str]] = ()
    # By default: connections to an endpoint, and calls on each.
    _size: ClassVar[int]
    _calls: ClassVar[int]

    def __init__(
        self,
        endpoints: Endpoints | Discover,
        *,
        interface: Named[Interface_co] = None,
        idempotent: Collection[str] | None = None,
        policies: Sequence[Policy] | None = None,
        **options: Unpack[ChannelOptions],
    ) -> None:
        """Prepare the channel; nothing is connected yet.

        `endpoints` are addresses as ``["a:5000", "unix:/x"]`` or ``"a:5000,b:5000"``, or a callable
        that returns the present ones. The methods named in `idempotent` may run twice; it and
        `interface` are the class's own if they are None. The default of `policies` is
        `default_stack()`; they keep what they have learnt, so give each channel its own.

        Raises:
            AddressError: An address is none, or comes twice.
            NotAnInterface: `interface` is no interface of a schema.
            UsageError: Another argument is out of its range.
        """
        self._methods = Methods(
            self.interface if interface is None else interface,
            self.idempotent if idempotent is None else idempotent,
        )
        self._discovery = Discovery(endpoints, options.pop("refresh_s", REFRESH_S))
        self._connect_timeout_s = check_timeout(options.pop("connect_timeout_s", CONNECT_TIMEOUT_S))
        self._stream_window_bytes = options.pop("stream_window_bytes", STREAM_WINDOW_BYTES)
        self._max_message_bytes = options.pop("max_message_bytes", MESSAGE_BYTES)
        # Before anything is connected.
        limits_of(self._max_message_bytes)
        self._security = secured(options.pop("tls", None))
        waits_for_ready = options.pop("wait_for_ready", False)
        sizes = Sizes(
            options.pop("size", self._size),
            options.pop("calls_per_connection", self._calls),
            options.pop("idle_s", IDLE_S),
            options.pop("max_age_s", None),
            is_eager=options.pop("eager", False),
        )
        if options:
            raise TypeError(f"a channel has no option {next(iter(options))!r}")
        self._pool = Pool(
            default_stack() if policies is None else policies,
            sizes,
            waits_for_ready=waits_for_ready,
            attempt=self._attempt_kind(),
        )

    def _attempt_kind(self) -> Callable[..., Attempt]:
        return Attempt

    @property
    def endpoints(self) -> list[EndpointStatus]:
        """What is known of each endpoint now."""
        return self._pool.status(monotonic())
