@0xf07c31d69a52e8b4;
# What the fault tests ask of a server.

using Kinds = import "kinds.capnp".Kinds;
using Rare = import "kinds.capnp".Rare;

interface Probe {
    depth @0 (kinds :Kinds) -> (depth :UInt32);
    # How many levels of `again` there are below `kinds`.

    lengths @1 (kinds :Kinds) -> (text :UInt32, data :UInt32, longs :UInt32);

    later @2 (kinds :Kinds) -> (text :Text);
    # Reads `text` 50 ms after the call came, and returns it.

    wait @3 () -> ();
    # Ends by cancellation only.

    ledger @4 () -> (started :UInt32, ended :UInt32);
    # Counts the calls of `wait`.

    large @5 (size :UInt32) -> (data :Data);

    largeLater @6 (size :UInt32) -> (data :Data);
    # The same, 200 ms after the call.

    echo @7 (kinds :Kinds) -> (kinds :Kinds);
    echoRare @8 (rare :Rare) -> (rare :Rare);
    # Answered by pycapnp's server only, for the frames.
}
