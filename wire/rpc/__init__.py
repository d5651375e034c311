"""The RPC protocol: frames, messages, and both halves of a connection, without I/O."""
