"""What is accepted as a timeout."""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from capnp_rig.client import ClientError, UsageError
from capnp_rig.objects.timeouts import MAX_TIMEOUT_S, check_timeout


@pytest.mark.parametrize(
    "timeout_s", [0, 0.0, 1, 0.001, 15.0, MAX_TIMEOUT_S, Fraction(1, 2), np.float32(0.5), True]
)
def test_a_timeout_is_a_number_of_seconds(timeout_s: Any) -> None:
    checked = check_timeout(timeout_s)
    assert type(checked) is float
    assert checked == float(timeout_s)


@pytest.mark.parametrize(
    "timeout_s",
    [
        *(math.inf, -math.inf, math.nan, -1, -1e-9, 1e300, 10**400, MAX_TIMEOUT_S * 1.01),
        *("1", b"1", None, [], 1j, Decimal(1), np.float64("nan")),
    ],
    ids=repr,
)
def test_what_is_no_timeout_is_a_usage_error(timeout_s: Any) -> None:
    with pytest.raises(UsageError, match="a timeout is 0 to 31536000 seconds, not ") as error:
        check_timeout(timeout_s)
    assert isinstance(error.value, ValueError)
    assert not isinstance(error.value, ClientError)
