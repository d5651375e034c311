@0xd6a1c7a5b1f0c9e3;
# One field of each kind that struct views read, with and without defaults.

enum Colour { red @0; green @1; blue @2; }

struct Kinds {
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
    f64 @11 :Float64;
    colour @12 :Colour = blue;
    nothing @13 :Void;
    text @14 :Text;
    data @15 :Data;
    bytes @16 :List(UInt8);
    shorts @17 :List(Int16);
    ints @18 :List(UInt32);
    longs @19 :List(Int64);
    floats @20 :List(Float32);
    doubles @21 :List(Float64);
    inner @22 :Inner;
    again @23 :Kinds;
    f64Default @24 :Float64 = -0.25;
    flag2 @25 :Bool;
    inners @26 :List(Inner);
    texts @27 :List(Text);
    blobs @28 :List(Data);
    flags @29 :List(Bool);
    hues @30 :List(Colour);
    grid @31 :List(List(Int16));
}

struct Inner {
    number @0 :UInt16;
    name @1 :Text;
}

struct InnerOld {
    number @0 :UInt16;
}

struct Empty {}

struct HasEmpty { empty @0 :Empty; }

struct Wider { items @0 :List(Item); struct Item { value @0 :UInt32; more @1 :Text; } }
struct WiderLongs { items @0 :List(UInt64); }
struct Narrow { items @0 :List(UInt32); }
struct NarrowText { items @0 :Text; }

struct Rare {
    # What struct views leave to pycapnp, beside plain fields.
    number @0 :UInt16;
    texts @1 :List(Text);
    inners @2 :List(Inner);
    flags @3 :List(Bool);
    colours @4 :List(Colour);
    group :group { low @5 :Int8; high @6 :Int8; }
    union { first @7 :Int32; second @8 :Text; }
    any @9 :AnyPointer;
    greeting @10 :Text = "hi";
    inner @11 :Inner;
    nested @12 :List(List(Int8));
}

struct HasRare { rare @0 :Rare; padding @1 :Text; }

interface Base { base @0 () -> (); }
interface Derived extends(Base) { own @0 (x :Int8) -> (y :Int8); second @1 Inner -> Inner; }

interface RareService extends(Base) {
    echo @0 (rare :Rare) -> (rare :Rare, active :Text);
    later @1 (name :Text) -> (name :Text);
}
