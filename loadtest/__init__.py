"""The load rig: Locust users, microsecond histograms, codec benchmarks and the demo.

Locust puts this folder first on `sys.path` while it loads ``capnp_user.py``, so no
module here may bear the name of one that Python or a library imports. Only
`loadtest.capnp_user` and `loadtest.locust_report` import locust, since that
patches the process.
"""
