"""A Cap'n Proto RPC server: a supervisor that accepts, and pinned workers that serve."""

from capnp_rig._lazy import lazy_names

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from capnp_rig.objects.binding import ServiceError as ServiceError

__getattr__ = lazy_names(__name__, {"capnp_rig.objects.binding": "ServiceError"})
