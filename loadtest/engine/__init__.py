"""The load engine: processes that send calls on a schedule, and those of the server beside them."""
