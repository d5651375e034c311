"""Stubs of a schema: what a type checker and an editor need to know of it (``client stubs``).

`nodes` gathers the nodes of a schema from pycapnp, `describe` makes plain definitions of them
(`model`), and `render` writes these as the classes of a ``.pyi`` file: what an interface has by
`inheritance`, what types are in Python by `types_of`, all by their `names`. What those classes
import is in `values` and in `objects.typed_calls`.
"""
