"""The service of ``reverse.proto`` over grpc.aio, with the faults of a `FaultPage`.

``python -m capnp_rig.loadtest.clients.faulty_grpc_server ADDR`` announces itself as ``server run``
does. ``server run --stack grpc`` has no services but the default one.
"""

import sys
from typing import Any

# It ships no type information.
import grpc  # type: ignore[import-untyped, unused-ignore]
import uvloop

from capnp_rig.loadtest.clients.fault_page import FaultyPart
from capnp_rig.schema.reverse_proto import READ, SERVICE, Chunk, MessageContent


async def _serve(address: str) -> None:
    part = FaultyPart()

    async def read(request: Any, _context: Any) -> Any:
        await part.run()
        return Chunk(chunk=request.content[::-1].encode())

    handler = grpc.unary_unary_rpc_method_handler(
        read,
        request_deserializer=MessageContent.FromString,
        response_serializer=Chunk.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(SERVICE, {READ: handler})]
    )
    port = server.add_insecure_port(address)
    await server.start()
    print(f"Listening on {address.rpartition(':')[0]}:{port} with 1 worker", flush=True)  # noqa: T201
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
