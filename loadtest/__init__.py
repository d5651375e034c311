"""The load rig: Locust users, an engine, benchmarks, and the report of what they measured.

Locust puts this folder first on `sys.path` while it loads ``capnp_user.py``, so no
module here may bear the name of one that Python or a library imports; nor in ``locust_rig``,
where a locustfile lies. Only the users (``*_user.py``), ``locust_rig`` and the shapes import
locust, since that patches the process.
"""
