"""The option ``--margin``: how far apart two may be and still count as the same."""

import re

import click

from capnp_rig.loadtest.stats.pair_statistics import MARGIN


def _read_margin(_context: click.Context, _option: click.Parameter, text: str) -> float:
    """Return the share of a margin such as 3% or 0.5 %.

    Raises:
        click.UsageError: It is none, or not between 0 and 100 %.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text.strip())
    percent = 0.0 if match is None else float(match[1])
    if not 0 < percent < 100:
        raise click.UsageError(
            f"bad margin {text!r}: expected over 0 % and under 100 %, such as 3%"
        )
    return percent / 100


margin_option = click.option(
    "--margin",
    metavar="PERCENT",
    callback=_read_margin,
    default=f"{MARGIN:.0%}",
    help="The same is what lies within it with its whole interval, whatever the noise.",
)
