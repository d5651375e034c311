"""The engines: what speaks the protocol on the connections that a worker adopted."""
