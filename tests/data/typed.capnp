@0xb7c2f1d94e6a8035;
# What stubs have to tell apart: every type in params and in results, capabilities above all.

using Pair = import "chains.capnp".Pair;

enum Colour { red @0; green @1; }

struct Box(T) { value @0 :T; }

struct Shape {
    name @0 :Text;
    colour @1 :Colour;
    union { circle @2 :Float64; sides @3 :List(Float32); none @4 :Void; }
    place :group { x @5 :Int32; y @6 :Int32; }
    from @7 :Data;
    inside @8 :List(Shape);
}

interface Node { size @0 () -> (bytes :UInt64); }

interface Folder extends(Node) {
    open @0 (name :Text) -> (node :Node, folder :Folder, pair :Pair);
    watch @1 (watcher :Watcher, others :List(Watcher)) -> ();
    write @2 (data :Data) -> stream;

    interface Watcher { changed @0 (name :Text, folder :Folder) -> (); }
}

interface Maker {
    add @0 (left :Int32, right :Int32) -> (sum :Int32);
    draw @1 Shape -> (shapes :List(Shape), names :List(Text), colours :List(Colour));
    boxes @2 (text :Box(Text)) -> (data :Box(Data), any :AnyPointer, folder :Box(Folder));
    root @3 () -> (folder :Folder);
    keep @4 (names :List(Text), numbers :List(Int64), flags :List(Bool), grid :List(List(Int8)));
}
