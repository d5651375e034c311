"""Locust users of gRPC, ``server run --stack grpc``.

They speak HTTP/2 by themselves (`protocols.http2_exchange`): grpcio has an event loop of its
own, which keeps gevent's waiting.

``locust -f loadtest/grpc_user.py -H ADDR``; `loadtest.stack_user` has the options.
"""

from capnp_rig.loadtest.stack_user import StackUser


class GrpcUser(StackUser):
    """Calls `Read`, or `ReverseBytes` with a binary payload."""

    stack = "grpc"
