"""Methods that do one thing each: ``server run --service`` gets this module's `Costs`."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

from capnp_rig.schema import load_schema


class Costs:
    """`Costs`, written as a user would: `loadtest.benchmarks.service_cost` measures each method."""

    interface = load_schema("costs.capnp").Costs

    def nothing(self, params: Any) -> None:
        """Read nothing, and answer with defaults."""

    def number(self, params: Any) -> Mapping[str, Any]:
        """Answer with the number."""
        return {"number": params.number}

    async def coroutine(self, params: Any) -> Mapping[str, Any]:
        """Do as `number`, without a wait."""
        return {"number": params.number}

    async def waiting(self, params: Any) -> Mapping[str, Any]:
        """Do as `number`, one turn of the event loop later."""
        await asyncio.sleep(0)
        return {"number": params.number}

    def length(self, params: Any) -> Mapping[str, Any]:
        """Read the text, and answer with its length."""
        return {"number": len(params.text)}

    def text(self, params: Any) -> Mapping[str, Any]:
        """Answer with the text."""
        return {"text": params.text}

    def view(self, params: Any) -> Mapping[str, Any]:
        """View the values through numpy, and answer with how many there are."""
        return {"number": np.asarray(params.values).size}

    async def copied(self, params: Any) -> Mapping[str, Any]:
        """Do as `view`, in a message that is copied because an async method may keep it."""
        return {"number": np.asarray(params.values).size}

    def sum(self, params: Any) -> Mapping[str, Any]:
        """Answer with the sum of the values, which numpy adds."""
        return {"total": np.asarray(params.values).sum()}

    def floats(self, params: Any) -> Mapping[str, Any]:
        """Do as `sum`, with a Python object for each value."""
        return {"total": sum(params.values)}
