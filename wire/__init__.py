"""Cap'n Proto RPC Level 0 on plain bytes: no sockets, no clocks, no processes.

Feed received bytes to a `ClientConnection` or `ServerConnection`, take typed
events out, ask for the bytes to send. `wire.rpc.messages` has the messages, `wire.encoding.frames`
the stream, `wire.encoding.pointers` the encoding, `wire.encoding.structs` the readers and writers
that are compiled from a schema.
"""
