"""The load rig: Locust users, an engine, benchmarks, and the report of what they measured.

A locustfile subclasses `CapnpUser`; `read_result` returns what a run left in its folder.

Locust puts the folder of a locustfile first on `sys.path` while it loads it. So no module beside a
locustfile, here and in ``locust_rig``, may have the name of one that Python or a library imports.
Only the users (``*_user.py``), ``locust_rig`` and the shapes import locust, since that patches the
process.
"""

from capnp_rig._lazy import lazy_names

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from capnp_rig.loadtest.capnp_user import CallFailed as CallFailed
    from capnp_rig.loadtest.capnp_user import CapnpUser as CapnpUser
    from capnp_rig.loadtest.capnp_user import ReverseUser as ReverseUser
    from capnp_rig.loadtest.results import Figure as Figure
    from capnp_rig.loadtest.results import ResultError as ResultError
    from capnp_rig.loadtest.results.load_samples import Result as Result
    from capnp_rig.loadtest.results.load_samples import read_result as read_result

__getattr__ = lazy_names(
    __name__,
    {
        "capnp_rig.loadtest.capnp_user": "CallFailed CapnpUser ReverseUser",
        "capnp_rig.loadtest.results": "Figure ResultError",
        "capnp_rig.loadtest.results.load_samples": "Result read_result",
    },
)
