"""Cap'n Proto RPC Level 0 on plain bytes: no sockets, no clocks, no processes.

Feed received bytes to a `ClientConnection` or `ServerConnection`, take typed
events out, ask for the bytes to send. `wire.messages` has the messages, `wire.frames`
the stream, `wire.pointers` the encoding, `wire.structs` the readers and writers
that are compiled from a schema.
"""
