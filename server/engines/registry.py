"""The engines by name.

To add one: write a module with an async context manager like `open_pycapnp_engine`, and name it in
`server.config.ENGINES` and in `open_engine`.
"""

from contextlib import AbstractAsyncContextManager
from typing import Any

from capnp_rig.server.control.call_stamp import Stamp
from capnp_rig.server.engines.engine import Engine
from capnp_rig.server.logs.log import Log


def open_engine(
    name: str, service: Any, log: Log, stamp: Stamp
) -> AbstractAsyncContextManager[Engine]:
    """Return the engine that serves `service`, to be entered in a running event loop.

    It stamps the connection whose call runs, as `server.control.call_stamp` explains.
    """
    if name == "wire":
        from capnp_rig.server.engines.wire_engine import open_wire_engine

        return open_wire_engine(service, log, stamp)
    from capnp_rig.server.engines.pycapnp_engine import open_pycapnp_engine

    return open_pycapnp_engine(service, log, stamp)
