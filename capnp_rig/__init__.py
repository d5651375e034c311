"""A Cap'n Proto RPC server for Python, its client, and the rig that load-tests it.

The packages stand at the top of the source tree; this folder links to them, so that they have
one import name between them.
"""
