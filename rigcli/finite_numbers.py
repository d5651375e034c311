"""Numbers on the command line: unlike click's ranges, they refuse nan and inf."""

import math
from typing import Any

import click


class FiniteFloat(click.FloatRange):
    """A number in a range: not nan, which no range excludes, nor infinity."""

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the number, or fail with a usage error."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
