@0xb7c2e5d1904f3a68;
# Lists that views read and write themselves, and what newer and older schemas make of them.

enum Colour { red @0; green @1; blue @2; }

struct Item {
    number @0 :Int16 = -7;
    on @1 :Bool = true;
    off @2 :Bool;
    colour @3 :Colour = blue;
    ratio @4 :Float32 = 0.5;
    name @5 :Text;
    data @6 :Data;
    shorts @7 :List(Int16);
    part @8 :Part;
    children @9 :List(Item);
}

struct Part { size @0 :UInt8; label @1 :Text; }

struct Lists {
    items @0 :List(Item);
    texts @1 :List(Text);
    blobs @2 :List(Data);
    flags @3 :List(Bool);
    colours @4 :List(Colour);
    grid @5 :List(List(Int16));
    words @6 :List(List(Text));
    families @7 :List(List(Item));
    empties @8 :List(Empty);
    last @9 :Text;
}

struct Empty {}

# One list under many schemas.
struct Voids { list @0 :List(Void); }
struct Bits { list @0 :List(Bool); }
struct Bytes { list @0 :List(UInt8); }
struct Shorts { list @0 :List(UInt16); }
struct Longs { list @0 :List(UInt64); }
struct Texts { list @0 :List(Text); }
struct Blobs { list @0 :List(Data); }
struct Grids { list @0 :List(List(UInt16)); }
struct Colours { list @0 :List(Colour); }
struct Numbered { list @0 :List(Number); struct Number { value @0 :UInt16; } }
struct Named { list @0 :List(Name); struct Name { name @0 :Text; } }
struct Gridded { list @0 :List(Grid); struct Grid { grid @0 :List(UInt16); } }
struct Wide {
    list @0 :List(Element);
    struct Element { value @0 :UInt16; more @1 :UInt64; on @2 :Bool; name @3 :Text; last @4 :Data; }
}

struct Chosen { list @0 :List(Choice); struct Choice { union { one @0 :UInt8; other @1 :Text; } } }
