"""Load shapes for Locust: ``locust -f loadtest/capnp_user.py,loadtest/shapes/steps.py``.

Each file is one shape with options of its own, and has its plan in `locust_rig.shape_plan`. With
``--rate`` that is the rate of all `peak_users`: fewer users make their part of it.
"""
