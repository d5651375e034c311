@0xd1f4c9b0e7a35d26;
# What the tests of capabilities talk about: sessions are given out, callbacks come and go.

interface Session {
    read @0 (number :UInt32) -> (text :Text);
    nested @1 (name :Text) -> (session :Session);
}

interface Callback {
    tell @0 (number :UInt32) -> (seen :UInt32);
    give @1 () -> (session :Session);
}

struct Pair {
    name @0 :Text;
    session @1 :Session;
    others @2 :List(Session);
    any @3 :AnyPointer;
}

interface Main {
    login @0 (user :Text) -> (session :Session, pair :Pair);
    adopt @1 (callback :Callback, times :UInt32) -> (seen :List(UInt32));
    # Calls the callback so often.

    keep @2 (callback :Callback) -> ();
    # Keeps it, instead of what it kept before.

    back @3 (callback :Callback, delay :UInt32) -> (callback :Callback);
    # Returns what it was given, after so many ms.

    promise @4 (kind :Text) -> (session :Session);
    # One that is resolved after the Return: to a session, the `give` of what was kept, or broken.

    live @5 () -> (sessions :UInt32);
    tail @6 (callback :Callback) -> (session :Session);
    # Whatever `give` of the callback returns.
}
