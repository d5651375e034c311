@0xb8f21c6e5a90d743;
# What peers of different implementations talk about, to the same transcript.
#
# Everything happens in a world of its own, which keeps a journal of what its objects were asked.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("scenarios");

interface Lobby {
    enter @0 () -> (world :World);
}

interface World {
    journal @0 () -> (lines :List(Text));
    # What was asked so far, and forget it.

    live @1 () -> (count :UInt32);
    # How many sessions, directories, files and cells there are in this world.

    calculator @2 () -> (calculator :Calculator);
    login @3 (user :Text) -> (session :Session);
    upload @4 (name :Text) -> (sink :Sink);

    cell @5 (name :Text) -> (cell :Cell);
    # A new object each time.

    keep @6 (cell :Cell) -> ();
    # Keeps it, instead of what was kept before; null keeps nothing.

    kept @7 () -> (cell :Cell);
    back @8 (cell :Cell) -> (cell :Cell);
    # Returns what it was given, once the gate is open.

    later @9 (giver :Giver) -> (cell :Cell);
    # Returns at once, with a promise: of what the giver gives.

    giver @10 (name :Text) -> (giver :Giver);
    # Gives a new cell once the gate is open, or fails if it has no name.

    open @11 (delay :UInt32) -> ();
    # Opens the gate, after so many ms.

    giverOf @12 (cell :Cell) -> (giver :Giver);
    # Gives this cell once the gate is open.

    call @13 (cell :Cell, times :UInt32) -> (total :UInt32);
    # Calls `add` so often.
}

# --- a calculator ---

interface Calculator {
    enum Operator { add @0; subtract @1; multiply @2; divide @3; }

    struct Expression {
        union {
            literal @0 :Float64;
            value @1 :Value;
            parameter @2 :UInt32;
            call :group {
                function @3 :Function;
                params @4 :List(Expression);
            }
        }
    }

    interface Value {
        read @0 () -> (number :Float64);
    }

    interface Function {
        call @0 (params :List(Float64)) -> (number :Float64);
    }

    evaluate @0 (expression :Expression) -> (value :Value);
    define @1 (params :UInt32, body :Expression) -> (function :Function);
    operation @2 (operator :Operator) -> (function :Function);
}

# --- a file system ---

interface Session {
    root @0 () -> (root :Directory);
    logout @1 () -> ();
    # From now on everything of this session fails.
}

interface Node {
    stat @0 () -> (name :Text, bytes :UInt64);
}

interface File extends(Node) {
    read @0 (at :UInt64, bytes :UInt32) -> (data :Data);
    write @1 (at :UInt64, data :Data) -> ();
}

interface Directory extends(Node) {
    struct Entry {
        name @0 :Text;
        node @1 :Node;
    }

    list @0 () -> (entries :List(Entry), nodes :List(Node));
    find @1 (name :Text) -> (node :Node, file :File, directory :Directory);
    # Null is what it is not.

    create @2 (name :Text) -> (file :File);
    make @3 (name :Text) -> (directory :Directory);
    link @4 (name :Text, node :Node) -> ();
    # Enters a node of any file system.
}

# --- an upload ---

interface Sink {
    write @0 (chunk :Data) -> stream;
    # Fails if the chunk is empty.

    end @1 () -> (bytes :UInt64, sum :UInt32);
    # What was written, and the sum of each byte times its place, counted from 1.
}

# --- references ---

interface Cell {
    add @0 (number :UInt32) -> (total :UInt32);
    # Order shows: numbers are to come in theirs, counted from 0.
}

interface Giver {
    give @0 () -> (cell :Cell);
}
