"""The log lines of a worker about its connections, in the tutorial's words.

Those of a connection that ends well are for the level debug: a busy server would write thousands
a second, and whoever wants to count connections reads its metrics.
"""

from capnp_rig.server.control.messages import Setup
from capnp_rig.server.logs.log import Log


class ConnectionLog:
    """The lines of one worker; each names the worker and the peer."""

    def __init__(self, log: Log, setup: Setup, pin_error: str | None) -> None:
        self._log = log
        self._worker = setup.worker
        self._core = setup.core if pin_error is None else None
        self._name = f"[Worker {setup.worker}]"
        system = "RPC system" if setup.config.stack == "capnp" else f"{setup.config.stack} stack"
        self._system = f"{self._name} {system}"

    def received(self, peer: str) -> None:
        """Tell of a connection that was handed over, and of where it will be served."""
        self._log.debug(
            f"{self._name} received a new connection from {peer}",
            kind=f"{self._name} received new connections",
            worker=self._worker,
            peer=peer,
        )
        self.running(peer=peer)

    def running(self, **fields: str) -> None:
        """Tell which core serves."""
        place = "any core" if self._core is None else f"core {self._core}"
        self._log.debug(
            f"{self._name} running on {place}",
            kind=f"{self._name} running on {place}",
            core=self._core,
            worker=self._worker,
            **fields,
        )

    def started(self, peer: str) -> None:
        """Tell that a connection is being served."""
        self._log.debug(
            f"{self._system} started for peer: {peer}",
            kind=f"{self._system} started for peers",
            worker=self._worker,
            peer=peer,
        )

    def listening(self, address: str) -> None:
        """Tell that the worker accepts connections by itself."""
        self._log.debug(f"{self._system} started on {address}", worker=self._worker)

    def ended(self, peer: str, reason: str | None) -> None:
        """Tell of the end of a connection; `reason` None means a clean one."""
        if reason is None:
            self._log.debug(
                f"{self._system} for peer {peer} finished cleanly.",
                kind=f"{self._system} for peers finished cleanly",
                worker=self._worker,
                peer=peer,
            )
            return
        # A peer that resets or breaks the protocol is no fault of ours, only worth a warning.
        self._log.warning(
            f"{self._system} error for peer {peer}: {reason}",
            kind=f"{self._system} errors",
            reason=reason,
            worker=self._worker,
            peer=peer,
        )
