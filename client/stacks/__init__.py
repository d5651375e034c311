"""Blocking clients of the stacks that stand beside capnp; `registry` connects one by its name."""
