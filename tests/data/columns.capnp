@0xc1a5e0b7f3d29461;
# A list whose structs have every kind of column, and what older and newer schemas make of it.

enum Colour { red @0; green @1; blue @2; }

struct Plain {
    big @0 :UInt64;
    ratio @1 :Float64;
    small @2 :Int16;
    colour @3 :Colour;
    label @4 :Text;
}

struct Everything {
    flag @0 :Bool;
    flagOn @1 :Bool = true;
    i8 @2 :Int8;
    i16 @3 :Int16 = -7;
    i32 @4 :Int32;
    i64 @5 :Int64 = -9000000000;
    u8 @6 :UInt8 = 200;
    u16 @7 :UInt16;
    u32 @8 :UInt32 = 4000000000;
    u64 @9 :UInt64;
    f32 @10 :Float32 = 1.5;
    f64 @11 :Float64 = -0.25;
    colour @12 :Colour = blue;
    nothing @13 :Void;
    text @14 :Text;
    numbers @15 :List(UInt16);
    position :group { x @16 :Float32; deep :group { on @17 :Bool; z @18 :Int8 = 3; } }
    union {
        none @19 :Void;
        count @20 :UInt32 = 9;
        note @21 :Text;
        speed :group { now @22 :Float64; union { known @23 :Bool; guess @24 :Int8; } }
    }
}

struct Defaults { first @0 :Int32 = 5; second @1 :Float64; }
struct Texts { text @0 :Text; }
struct Which { which @0 :UInt8; value @1 :Int8; }

struct Plains { list @0 :List(Plain); }
struct Everythings { list @0 :List(Everything); }

# The same list under other schemas.
struct Number { value @0 :UInt16; }
struct Numbers { list @0 :List(Number); }
struct Wide { value @0 :UInt16; more @1 :UInt64; on @2 :Bool; last @3 :Int32 = 4; text @4 :Text; }
struct Wides { list @0 :List(Wide); }
struct Shorts { list @0 :List(UInt16); }
struct Longs { list @0 :List(UInt64); }
struct Voids { list @0 :List(Void); }
struct Bits { list @0 :List(Bool); }
struct Blobs { list @0 :List(Data); }
