"""The client of the stack ``grpc``."""

import queue
import time
from pathlib import Path
from typing import Any

# It ships no type information.
import grpc  # type: ignore[import-untyped, unused-ignore]

from capnp_rig.client.connecting import connect_socket, secured
from capnp_rig.client.stacks.texts import utf8
from capnp_rig.client.tls import Tls
from capnp_rig.objects.errors import (
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    RemoteError,
)
from capnp_rig.rigcli.address import Address
from capnp_rig.schema.reverse_proto import READ, SERVICE, Chunk, MessageContent

_READY = grpc.ChannelConnectivity.READY
_FAILURE = grpc.ChannelConnectivity.TRANSIENT_FAILURE
_OPTIONS = [
    # Neither the size of a message nor a proxy is the business of a client of this server.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Else the clients of a process share a connection.
    ("grpc.use_local_subchannel_pool", 1),
]


class GrpcClient:
    """One channel, with a connection of its own."""

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float,
        connect_timeout_s: float,
        tls: Tls | None = None,
    ) -> None:
        """Connect.

        Raises:
            ConnectError: No gRPC server answers there within `connect_timeout_s`.
        """
        self._timeout_s = timeout_s
        # All that may be wrong with it is said by ourselves.
        security = secured(tls, ["h2"])
        self._channel = _open_channel(address, tls)
        self._read = self._channel.unary_unary(
            f"/{SERVICE}/{READ}",
            request_serializer=MessageContent.SerializeToString,
            response_deserializer=Chunk.FromString,
        )
        if not self._is_ready_within(connect_timeout_s):
            self._channel.close()
            # gRPC has no words of its own for what may be wrong with the address.
            connect_socket(address, connect_timeout_s, security).close()
            raise ConnectError(f"cannot connect to {address}: no gRPC server answers there")

    def _is_ready_within(self, timeout_s: float) -> bool:
        states = queue.SimpleQueue[Any]()
        self._channel.subscribe(states.put, try_to_connect=True)
        deadline_s = time.monotonic() + timeout_s
        try:
            while (state := states.get(timeout=deadline_s - time.monotonic())) is not _READY:
                # It would try again by itself, for ever.
                if state is _FAILURE:
                    return False
        except (queue.Empty, ValueError):
            # ValueError: the time was over before it was asked.
            return False
        finally:
            self._channel.unsubscribe(states.put)
        return True

    def read(self, text: str) -> bytes:
        """Return the text reversed."""
        utf8(text)
        try:
            answer = self._read(MessageContent(content=text), timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise _typed(error) from error
        chunk: bytes = answer.chunk
        return chunk

    def ping(self) -> None:
        """Reverse nothing."""
        self.read("")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def _open_channel(address: Address, tls: Tls | None) -> Any:
    if tls is None:
        return grpc.insecure_channel(str(address), options=_OPTIONS)
    key = tls.key or tls.cert
    credentials = grpc.ssl_channel_credentials(
        root_certificates=None if tls.ca is None else Path(tls.ca).read_bytes(),
        private_key=None if tls.cert is None or key is None else Path(key).read_bytes(),
        certificate_chain=None if tls.cert is None else Path(tls.cert).read_bytes(),
    )
    name = [] if tls.name is None else [("grpc.ssl_target_name_override", tls.name)]
    return grpc.secure_channel(str(address), credentials, options=[*_OPTIONS, *name])


def _typed(error: Any) -> ClientError:
    code, details = error.code(), error.details() or "no reason given"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("no answer within the deadline")
    if code is grpc.StatusCode.UNAVAILABLE:
        return Disconnected(details)
    return RemoteError(f"gRPC status {code.name}: {details}")
