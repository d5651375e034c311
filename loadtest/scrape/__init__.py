"""A Prometheus endpoint, read while a load runs."""
