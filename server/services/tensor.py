"""An example with numbers: statistics of a float32 tensor, which numpy reads where it arrived."""

from collections.abc import Mapping
from math import prod
from typing import Any

from capnp_rig.objects.binding import ServiceError
from capnp_rig.objects.users_code import BadServiceError
from capnp_rig.schema import load_schema

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise BadServiceError("the tensor service needs numpy: pip install numpy") from error


class Tensor:
    """`TensorService`: the statistics of a tensor, and the tensor itself."""

    interface = load_schema("tensor.capnp").TensorService

    def describe(self, params: Any) -> Mapping[str, Any]:
        """Answer with count, extremes, mean and deviation, and the data as it came.

        On the wire engine `data` is a view of the receive buffer: numpy reads it there, and
        the answer takes it from there, the one copy on its way.
        """
        tensor = params.tensor
        data, shape = tensor.data, list(tensor.shape)
        if len(data) != 4 * prod(shape):
            raise ServiceError(f"shape {shape} needs {4 * prod(shape)} bytes, not {len(data)}")
        values = np.frombuffer(data, dtype="<f4").reshape(shape)
        return {
            "statistics": _statistics(values),
            "tensor": {"name": tensor.name, "shape": shape, "data": data},
        }


def _statistics(values: "np.ndarray[Any, Any]") -> Mapping[str, float | int]:
    if not values.size:
        return {}
    return {
        "count": values.size,
        "minimum": float(values.min()),
        "maximum": float(values.max()),
        "mean": float(values.mean(dtype="f8")),
        "deviation": float(values.std(dtype="f8")),
    }
