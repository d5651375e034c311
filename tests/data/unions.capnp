@0xe5b1f07a94c3d26b;
# Unions in groups, groups in unions, members that overlap, and defaults in all of them.

enum Colour { red @0; green @1; blue @2; }

struct Deep {
    flag @0 :Bool;
    union {
        nothing @1 :Void;
        small @2 :Int8 = -3;
        large @3 :UInt64 = 7;
        on @4 :Bool = true;
        colour @5 :Colour = blue;
        ratio @6 :Float32 = 1.5;
        name @7 :Text = "unnamed";
        data @8 :Data;
        numbers @9 :List(Int16) = [1, 2];
        trees @10 :List(Tree);
        pair :group {
            first @11 :UInt16 = 9;
            union {
                text @12 :Text;
                deeper :group { bit @13 :Bool; double @14 :Float64 = 2.5; blob @15 :Data; }
                none @16 :Void;
            }
            second @17 :Text;
        }
        self @18 :Deep;
    }
    kind :union {
        plain @19 :Void;
        level :group { low @20 :Int32 = -1; high @21 :Int32; names @22 :List(Text); }
        again :union { left @23 :UInt8; right @24 :Tree; }
    }
    last @25 :Text;
    always :group { bit @26 :Bool = true; more :group { word @27 :UInt32 = 5; text @28 :Text; } }
}

struct Tree {
    # The first member is the struct itself: a null one has no end.
    union { next @0 :Tree; leaf @1 :UInt32; }
    after @2 :UInt8;
}

struct DeepOld {
    # Deep as it was first: without most fields, in one word.
    flag @0 :Bool;
    union { nothing @1 :Void; small @2 :Int8 = -3; }
}

struct Defaults {
    text @0 :Text = "text";
    empty @1 :Text = "";
    data @2 :Data = 0x"00 ff";
    bytes @3 :List(UInt8) = [1, 2];
    bools @4 :List(Bool) = [true, false, true];
    colours @5 :List(Colour) = [blue, red];
    texts @6 :List(Text) = ["a", "b"];
    grid @7 :List(List(Int16)) = [[1], [], [-2, 3]];
    tree @8 :Tree = (next = (leaf = 5), after = 6);
    trees @9 :List(Tree) = [(leaf = 1), (next = (leaf = 2))];
    voids @10 :List(Void) = [void, void];
    group :group { floats @11 :List(Float64) = [0.5]; self @12 :Defaults = (text = "inner"); }
    union { first @13 :Text = "first"; second @14 :List(Int8) = [-1]; }
}

struct Loose {
    any @0 :AnyPointer;
    callback @1 :Callback;
    callbacks @2 :List(Callback);
    voids @3 :List(Void);
    group :group { any @4 :AnyPointer; union { none @5 :Void; member @6 :AnyPointer; } }
    interface Callback {}
}
struct Looses { list @0 :List(Loose); }

struct Any(T) {
    value @0 :T;
    group :group { union { none @1 :Void; inside @2 :T; list @3 :List(Box); } }
    struct Box { boxed @0 :T; }
}
struct Brands {
    text @0 :Any(Text);
    data @1 :Any(Data);
    tree @2 :Any(Tree);
    int8 @3 :Any(List(Int8));
    int16 @4 :Any(List(Int16));
    int32 @5 :Any(List(Int32));
    int64 @6 :Any(List(Int64));
    uint8 @7 :Any(List(UInt8));
    uint16 @8 :Any(List(UInt16));
    uint32 @9 :Any(List(UInt32));
    uint64 @10 :Any(List(UInt64));
    float32 @11 :Any(List(Float32));
    float64 @12 :Any(List(Float64));
    bool @13 :Any(List(Bool));
    void @14 :Any(List(Void));
    texts @15 :Any(List(Text));
    blobs @16 :Any(List(Data));
    trees @17 :Any(List(Tree));
    colours @18 :Any(List(Colour));
    grid @19 :Any(List(List(Float32)));
    callback @20 :Any(Loose.Callback);
}
