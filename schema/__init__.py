"""The Cap'n Proto schemas of the rig and the one loader everybody imports.

>>> from capnp_rig.schema import message
>>> message.MessageStream.MessageContent.new_message(content="hi").content
'hi'
"""

from capnp_rig.schema.loader import SchemaError, load, load_rpc, message

__all__ = ["SchemaError", "load", "load_rpc", "message"]
