"""Stands for a vl-convert that is not installed; `integration/conftest.py` says why."""

raise ModuleNotFoundError("no pictures are wanted here", name="vl_convert")
