"""What supervisor and workers tell each other."""
