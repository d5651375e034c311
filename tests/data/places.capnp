@0xe2b5d6a1c3f40879;
# Capabilities in all places of a struct, there and back.

interface Base { name @0 () -> (name :Text); }

interface Leaf extends(Base) {
    fail @0 (how :Text) -> (leaf :Leaf);
    wait @1 () -> ();
    stream @2 (number :UInt32) -> stream;
}

interface Numbered { name @0 (number :UInt32) -> (number :UInt32); }
interface Twin extends(Base, Numbered) {}

interface Other { other @0 () -> (); }

struct Box(T) { value @0 :T; }

struct Places {
    leaf @0 :Leaf;
    list @1 :List(Leaf);
    grid @2 :List(List(Leaf));
    number @3 :UInt32;
    data @4 :Data;
    inner @5 :Places;
    inners @6 :List(Places);
    group :group { leaf @7 :Leaf; text @8 :Text; }
    union {
        none @9 :Void;
        one @10 :Base;
        several :group { first @11 :Leaf; count @12 :UInt8; }
    }
    any @13 :AnyPointer;
    box @14 :Box(Leaf);
}

interface World {
    make @0 () -> (places :Places);
    back @1 (places :Places) -> (places :Places);
    names @2 (places :Places) -> (names :List(Text));
    ask @3 (leaf :Leaf, how :Text) -> (text :Text);
    give @4 (how :Text) -> (leaf :Leaf);
    closed @5 () -> (names :List(Text));
    twin @6 () -> (twin :Twin);
}
