"""The chain of calls that leads to the capability which is called: its params, packed.

It is walked once per connection, or pipelined before each call. Its params may have templates
(`workload.templates`): their values are those of the connection's walk, or of the call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from capnp_rig.client.via import Chain, Step
from capnp_rig.loadtest.workload.templated_params import Params, read_struct
from capnp_rig.loadtest.workload.templates import WIDEST, MakeSource, Source, Values
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.json_values.reading import read_items


@dataclass(frozen=True, slots=True)
class CallChain:
    """The `steps` to a capability, none where the server's own interface is called.

    `params` are those of each step, which `source` gives values for the templates `names`.
    """

    steps: Sequence[Step] = ()
    params: Sequence[Params] = ()
    is_pipelined: bool = False
    names: frozenset[str] = frozenset()
    source: Source | None = None

    @property
    def names_per_call(self) -> frozenset[str]:
        """The templates that each call fills in."""
        return self.names if self.is_pipelined else frozenset()

    def values(self, user: int) -> Iterator[Values]:
        """Yield the values of the walks of a connection, or of its calls."""
        assert self.source is not None
        return self.source.values(user)

    def pack(self, values: Values = WIDEST) -> tuple[EncodedTuple, ...]:
        """Return the params of each step."""
        return tuple(params.pack(values) for params in self.params)


def read_chain(
    chain: Chain, make_source: MakeSource, limits: FrameLimits, *, is_pipelined: bool
) -> CallChain:
    """Return a chain with its params.

    Raises:
        ParamsError: They do not fit their methods.
    """
    params, names = list[Params](), frozenset[str]()
    for step in chain.steps:
        place, name = f"via: {step.method.name}", f"the params of {step.method.name}"
        for item in read_items(step.params, place):
            struct = read_struct(item, step.schema, name)
            params.append(Params(step.method.params, struct, limits))
            names |= struct.names
    return CallChain(chain.steps, params, is_pipelined, names, make_source(names))
