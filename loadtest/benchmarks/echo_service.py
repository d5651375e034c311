"""The service behind round trips over RPC: ``server run --service`` gets this module's `Echo`."""

from collections.abc import Mapping
from typing import Any

from capnp_rig.schema import load_schema


class Echo:
    """`Echo.echo`; no data gives no data."""

    interface = load_schema("echo.capnp").Echo

    def echo(self, params: Any) -> Mapping[str, Any]:
        """Answer with the bytes as they came."""
        return {"data": params.data}
