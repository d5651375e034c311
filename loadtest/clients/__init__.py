"""Clients of several servers against each other, while these servers fail in turn."""
