"""The engines: what speaks the protocol on the connections that a worker adopted.

To add one: write a module with an async context manager like `open_wire_engine`, and name it in
`server.config.ENGINES` and in `server.worker.loop`.
"""
