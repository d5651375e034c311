"""How `client call` and `client ping` exit, for scripts and health checks."""

from enum import IntEnum

from capnp_rig.client.stacks.registry import LibraryMissingError
from capnp_rig.objects.errors import ClientError, ConnectError, DeadlineExceeded, RemoteError


class Status(IntEnum):
    """Exit statuses; Docker and Kubernetes take any but 0 for a failure."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    LATE = 4
    LOST = 5


# As the help and the documents have it.
STATUS_HELP = """
    \b
    Exit status:
      0  the server answered
      1  it answered with an error
      2  a mistake in the usage, or in the params
      3  no connection could be made
      4  no answer came in time
      5  the connection ended, or the server does not speak the protocol
"""


def status_of(error: ClientError | LibraryMissingError) -> Status:
    """Return the status of a call that ended in `error`."""
    if isinstance(error, LibraryMissingError):
        return Status.USAGE
    if isinstance(error, ConnectError):
        return Status.UNREACHABLE
    if isinstance(error, DeadlineExceeded):
        return Status.LATE
    return Status.FAILED if isinstance(error, RemoteError) else Status.LOST
