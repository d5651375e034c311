"""A call that is given in text: names of a schema, params as JSON, and a chain that leads to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnp_rig.client.blocking_client import Client
from capnp_rig.client.named_methods import UnknownName, choose, load_interfaces
from capnp_rig.client.via import ChainError, Step, compile_chain
from capnp_rig.objects.errors import RemoteError
from capnp_rig.rigcli.address import Address
from capnp_rig.schema import SchemaError
from capnp_rig.wire.json_values.reading import ParamsError, StructReader, parse_object
from capnp_rig.wire.rpc.interfaces import Method, compile_interface

if TYPE_CHECKING:
    from capnp_rig.client.tls import TlsArgument


@dataclass(frozen=True, slots=True)
class NamedCall:
    """A call of a `method` with `params`, of the capability to which `steps` lead.

    `interface` is that of the server's bootstrap, from which they start; each has its params.
    """

    interface: Any
    steps: tuple[tuple[Step, Mapping[str, Any]], ...]
    method: Method
    params: Mapping[str, Any]


def call_by_name(
    named: NamedCall,
    address: Address,
    *,
    timeout_s: float,
    connect_timeout_s: float,
    max_message_bytes: int,
    tls: "TlsArgument" = None,
) -> Any:
    """Connect, make the call, and return a view of its results; all steps leave in one write.

    Raises:
        BrokenChainError: The results of a step have no such capability.
        EncodeError, ClientError: As `Client.connect` and `Client.call`.
    """
    timeouts: dict[str, Any] = {"timeout_s": timeout_s, "connect_timeout_s": connect_timeout_s}
    with Client.connect(
        address,
        interface=named.interface,
        max_message_bytes=max_message_bytes,
        tls=tls,
        **timeouts,
    ) as client:
        target: Any = client
        pipelines = []
        for step, params in named.steps:
            pipeline = reached = target.pipeline(step.method.name, params)
            for name in step.fields:
                reached = getattr(reached, name)
            target = reached.cast(step.interface)
            pipelines.append((step, pipeline))
        try:
            # Not `call`, which returns from a streaming method before its answer.
            return target.pipeline(named.method.name, named.params).wait()
        except RemoteError:
            # A step that failed lets all that follow fail: its own error says why.
            for step, pipeline in pipelines:
                step.capability_in(pipeline.wait())
            raise


# What `read_call` raises.
MISTAKES = (SchemaError, UnknownName, ChainError, ParamsError)


def read_call(
    schema: str,
    *,
    interface: str | None,
    method: str | None,
    params: str,
    via: str | None,
    import_path: Sequence[str] = (),
) -> NamedCall:
    """Return the call that is named.

    `schema` is the path of a file; without a name, the file's only interface is meant, and the only
    method of that. `params` is a JSON object, as `wire.json_values` reads it. `via` is a chain, as
    `client.via` has it; then `interface` may be that of its end, too.

    Raises:
        SchemaError, UnknownName, ChainError, ParamsError: There is a mistake.
    """
    interfaces = load_interfaces(schema, import_path)
    steps: tuple[Step, ...] = ()
    if via is None:
        start = end = choose("interface", interface, interfaces, Path(schema).name)
    else:
        try:
            chain = compile_chain(via, interfaces, interface)
        except ChainError as error:
            raise ChainError(f"via: {error}") from error
        start, steps, end = chain.start, chain.steps, chain.end
    compiled = compile_interface(end)
    chosen = choose("method", method, compiled.methods, compiled.name)
    return NamedCall(
        start,
        tuple(
            (step, _read_params(step.params, step.method, f"via: {step.method.name}"))
            for step in steps
        ),
        chosen,
        _read_params(params, chosen, "params"),
    )


def _read_params(text: str, method: Method, place: str) -> dict[str, Any]:
    item = parse_object(text, place, place)
    name = f"the params of {method.name}"
    return StructReader(place).struct(method.params.schema, item.fields, name)
