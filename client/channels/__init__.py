"""Channels: calls over any number of connections to any number of endpoints.

`pool` decides, given the time and what happened; `asyncio_channel` and `blocking_channel` act.
"""
