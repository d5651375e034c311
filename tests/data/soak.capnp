@0xd1c6a83f20be975d;
# What the soak asks of a server.

interface Soak {
    plain @0 (nonce :UInt64, data :Data) -> (nonce :UInt64, data :Data);
    # Returns the data in reverse.

    later @1 (nonce :UInt64, data :Data) -> (nonce :UInt64, data :Data);
    # The same, from a task.

    fail @2 (nonce :UInt64) -> ();
    # Fails with a text that holds the nonce.

    crash @3 (nonce :UInt64) -> ();
    # Raises what the peer must not see.

    wait @4 (nonce :UInt64) -> ();
    # Ends by cancellation only.

    zeros @5 (nonce :UInt64, size :UInt32) -> (nonce :UInt64, data :Data);

    zerosLater @6 (nonce :UInt64, size :UInt32) -> (nonce :UInt64, data :Data);

    census @7 () -> (report :Text);
    # What the worker holds, as JSON.
}

interface Newer extends(Soak) {
    newer @0 () -> ();
    # A method of a peer that is newer than the server.
}
