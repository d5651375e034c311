import math

import click
import pytest

from capnp_rig.rigcli.finite_numbers import FiniteFloat


@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-inf", "1e999", "-0.1", "x", ""])
def test_what_is_no_number_of_seconds_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        FiniteFloat(min=0).convert(text, None, None)


@pytest.mark.parametrize("text", ["0", "0.5", "1e9"])
def test_a_number_in_the_range_is_taken(text: str) -> None:
    assert math.isclose(FiniteFloat(min=0).convert(text, None, None), float(text))
