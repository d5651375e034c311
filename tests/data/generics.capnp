@0xc4d19e7a2b6f8035;
# Generic structs and interfaces under many brands: bound, nested, inherited and left unbound.

struct Box(T) {
    value @0 :T;
    label @1 :Text;
}

struct Pair(A, B) {
    first @0 :A;
    second @1 :B;
}

struct Deep(T) {
    # Each level has a brand of its own, so there is no end of them.
    value @0 :T;
    next @1 :Deep(Box(T));
}

struct Outer(T) {
    inner @0 :Inner(Data);
    plain @1 :Plain;

    struct Inner(U) { mine @0 :U; theirs @1 :T; }
    struct Plain { value @0 :T; back @1 :Outer(T); }
}

struct Either(A, B) {
    union {
        left @0 :A;
        right @1 :B;
        neither @2 :Void;
    }
    both :group { a @3 :A; b @4 :B; }
}

struct Boxes {
    text @0 :Box(Text);
    data @1 :Box(Data);
    numbers @2 :Box(List(Int32));
    nested @3 :Box(Box(Text));
    nestedData @4 :Box(Box(Data));
    pair @5 :Pair(Text, Data);
    turned @6 :Pair(Data, Text);
    list @7 :List(Box(Text));
    dataList @8 :List(Box(Data));
    grid @9 :List(List(Box(Data)));
    outer @10 :Outer(Text);
    outerData @11 :Outer(Data);
    inner @12 :Outer(Data).Inner(Text);
    either @13 :Either(Text, Data);
    eitherData @14 :Either(Data, Text);
    boxed @15 :Box(List(Box(Data)));
    deep @16 :Deep(Data);
    same @17 :Box(Text);
}

struct Loose {
    # Parameters that are left unbound are AnyPointers.
    unbound @0 :Box;
    any @1 :Box(AnyPointer);
}

struct Capable {
    any @0 :Capability;
    several @1 :List(Capability);
    boxed @2 :Box(Plain);
    boxes @3 :Box(List(Capability));
    store @4 :Box(Store(Text, Data));

    interface Plain {}
}

struct DeepText { deep @0 :Deep(Text); }

interface Store(K, V) {
    get @0 (key :K) -> (value :V);
    turn @1 Pair(K, V) -> Pair(V, K);
    keep @2 [T] (thing :Box(T), key :K) -> (thing :Box(T));
    all @3 () -> (pairs :List(Pair(K, V)));
}

interface TextStore extends(Store(Text, Data)) {
    own @0 (box :Box(Text)) -> (box :Box(Data));
}
interface DataStore extends(Store(Data, Text)) {
    own @0 (box :Box(Data)) -> (box :Box(Text));
}
interface Middle(X) extends(Store(X, Box(X))) {}
interface DeepStore extends(Middle(Data)) {}
