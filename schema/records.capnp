@0xd5f0a8c1967be342;
# Mixed fields, alone and by the thousand: what the codec benchmarks send beside texts and tensors.

enum Kind {
    created @0;
    updated @1;
    moved @2;
    removed @3;
}

struct Record {
    id @0 :UInt64;
    time @1 :Int64;
    # Microseconds since the start.
    kind @2 :Kind;
    active @3 :Bool;
    total @4 :UInt32;
    change @5 :Int32;
    price @6 :Float64;
    weight @7 :Float32;
    name @8 :Text;
    note @9 :Text;
    key @10 :Data;
    readings @11 :List(Float64);
}

struct Records {
    records @0 :List(Record);
}
