"""The exceptions of the clients."""

import sys

from capnp_rig.client import RemoteError
from capnp_rig.objects.errors import fresh
from capnp_rig.wire.rpc.messages import ExceptionType


def test_a_fresh_error_holds_nothing_of_the_first_caller() -> None:
    first = RemoteError("why", ExceptionType.UNIMPLEMENTED)
    try:
        raise first
    except RemoteError:
        second = fresh(first)
    assert isinstance(second, RemoteError)
    assert (second.type, second.args) == (first.type, first.args)
    assert (second.__traceback__, second.__cause__, second.__context__) == (None, None, None)
    assert sys.getrefcount(first) < 4
