"""What an operator asks of a server: metrics for Prometheus, and whether it lives and is ready."""
