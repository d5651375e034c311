"""The figures of a load while it runs, for a Prometheus server."""
