"""The load rig: Locust users, microsecond histograms, codec benchmarks and the demo.

Locust puts this folder first on `sys.path` while it loads ``capnp_user.py``, so no
module here may bear the name of one that Python or a library imports. Only the users
(``*_user.py``), ``locust_*.py`` and the shapes import locust, since that patches the process.
"""
