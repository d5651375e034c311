@0xb8d0f3c6a1e27594;
# Capabilities in every place where a chain of calls may find them.

struct Box(T) { value @0 :T; }

struct Pair {
    name @0 :Text;
    session @1 :Files.Session;
    more @2 :Pair;
}

interface Files {
    interface Node { size @0 () -> (bytes :UInt64); }
    interface Folder extends(Node) {
        find @0 (name :Text) -> (node :Node, any :AnyPointer, cap :Capability);
    }
    interface Session {
        read @0 (number :UInt32) -> (text :Text);
        root @1 () -> (folder :Folder);
        logout @2 () -> ();
        nested @3 () -> (session :Session);
    }

    login @0 (user :Text, tag :Int64) -> (text :Text, session :Session, pair :Pair);
    grouped @1 () -> Grouped;
    either @2 (side :Text) -> Either;
    boxed @3 () -> (box :Box(Session));
    plain @4 () -> (number :Int32, numbers :List(Int32));
    live @5 () -> (sessions :UInt32, logins :UInt64);
    # How many sessions are held, and how many there have been.
}

struct Grouped {
    before @0 :Text;
    inside :group { pad @1 :Text; session @2 :Files.Session; }
}

struct Either {
    union { left @0 :Files.Session; right @1 :Files.Session; none @2 :Void; }
}

interface Door { enter @0 () -> (files :Files); }
interface BackDoor { enter @0 () -> (files :Files); }
