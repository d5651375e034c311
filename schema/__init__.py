"""The Cap'n Proto schemas of the rig, and the loader of any schema.

>>> from capnp_rig.schema import message
>>> message.MessageStream.MessageContent.new_message(content="hi").content
'hi'
"""

from capnp_rig.schema.loader import SchemaError, load_rpc, load_schema, message

__all__ = ["SchemaError", "load_rpc", "load_schema", "message"]
