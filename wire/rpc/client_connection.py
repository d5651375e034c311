"""A connection that calls the peer's bootstrap interface, and serves nothing."""

from collections.abc import Sequence
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.errors import LocalProtocolError
from capnp_rig.wire.rpc.connection import Connection, Limits


class ClientConnection(Connection):
    """The caller's end: asks for the peer's bootstrap interface and calls its methods.

    Examples:
        >>> connection = ClientConnection()
        >>> question_id = connection.call(0x8D1FB6963814A44A, 0, params)  # doctest: +SKIP
        >>> socket.sendall(connection.data_to_send())  # doctest: +SKIP
        >>> events = connection.receive_data(socket.recv(65536))  # doctest: +SKIP
    """

    __slots__ = ("main",)

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        # The bootstrap interface, or the promise of it.
        self.main = self.bootstrap()

    @property
    def calls_in_flight(self) -> int:
        """Calls that have been sent, not cancelled, and have no answer yet."""
        return self.questions_waiting

    @property
    def is_unheard(self) -> bool:
        """Whether the peer has not answered our Bootstrap: no call can have begun."""
        return not self.main.is_settled

    @property
    def holds_capabilities(self) -> bool:
        """Whether either side refers to an object of the other, but for `main`."""
        return len(self._imports) > 1 or bool(self._exports) or self.main.is_shared

    def call(  # type: ignore[override]
        self,
        interface_id: int,
        method_id: int,
        params: EncodedTuple,
        capabilities: Sequence[Any] = (),
    ) -> int:
        """Queue a call of the bootstrap interface, as `Connection.call`; return its question id.

        Raises:
            LocalProtocolError: The connection has ended, or has no bootstrap interface.
        """
        main = self.main
        direct = main._node.direct  # noqa: SLF001 - the path of every call
        if direct is not None and not capabilities and not self._ended:
            return self._call_direct(direct, interface_id, method_id, params)
        if direct is None:
            main.settle()
            error = main.error
            if error is not None:
                raise LocalProtocolError(f"no bootstrap interface: {error.reason}")
        # Without `super`, which takes 0.1 µs.
        return Connection.call(self, main, interface_id, method_id, params, capabilities)
