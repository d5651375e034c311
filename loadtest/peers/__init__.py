"""What other implementations send, and processes that load, answer and time with it."""
