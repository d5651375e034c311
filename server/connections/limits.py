"""What a connection may hold, and for how long."""

# After a reason to close was sent: how long it may take until the peer closes too, how much it may
# send until then, and how fast it must read what was sent before, in bytes a second
# (`server.connections.lingering`).
LINGER_S = 2.0
LINGER_BYTES = 67_108_864
LINGER_RATE = 500

# Answers that wait for the peer to read: nothing more is decoded from here on; the peer is cut off
# when it reads none of them for so long, or when calls that run already bring them to so many, as
# Redis cuts off its subscribers.
WRITE_LIMIT_BYTES = 1_048_576
STALL_LIMIT_S = 10.0
UNREAD_LIMIT_BYTES = 33_554_432
