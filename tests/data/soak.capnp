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

    open @8 (nonce :UInt64) -> (session :Session);
    lend @9 (echo :Echo, nonce :UInt64, data :Data) -> (nonce :UInt64, data :Data);
    # Returns what the echo returns.

    promise @10 (giver :Giver) -> (echo :Echo);
    # Returns at once, with a promise: of what the giver gives.
}

interface Echo {
    plain @0 (nonce :UInt64, data :Data) -> (nonce :UInt64, data :Data);
    # Returns the data in reverse.
}

interface Session extends(Echo) {
    later @0 (nonce :UInt64, data :Data) -> (nonce :UInt64, data :Data);
    open @1 (nonce :UInt64) -> (session :Session);
    keep @2 (echo :Echo) -> ();
    # Keeps it, instead of what was kept before; null keeps nothing.

    kept @3 () -> (echo :Echo);
    wait @4 (echo :Echo) -> ();
    # Ends by cancellation only.
}

interface Giver {
    give @0 () -> (echo :Echo);
}

interface Newer extends(Soak) {
    newer @0 () -> ();
    # A method of a peer that is newer than the server.
}
