@0xa3f1c86d27b945e0;
# Interfaces to generate load for, with every kind of value that JSON can give.

using Kinds = import "kinds.capnp".Kinds;
using Rare = import "kinds.capnp".Rare;

enum Unit { metre @0; foot @1; }

struct Point {
    x @0 :Int32;
    z @1 :Int32;
}

struct Shape {
    union {
        radius @0 :Float32;
        # The first member is what a union has by default.
        nothing @1 :Void;
        corners @2 :List(Point);
        box :group { low @3 :Point; high @4 :Point; }
        label @5 :Text;
    }
    unit @6 :Unit;
    tags @7 :List(Text);
    blobs @8 :List(Data);
    grid @9 :List(List(Int64));
    voids @10 :List(Void);
    counter @11 :Int8;
    next @12 :Shape;
    scale :union { none @13 :Void; factor @14 :Float64; }
    any @15 :AnyPointer;
}

struct Plain {
    # Only what struct views write themselves, but for one union.
    number @0 :UInt16;
    union { first @1 :UInt16; none @2 :Void; }
}

interface Measured {
    measure @0 (shape :Shape) -> (area :Float32, shape :Shape);
}

interface Geometry extends(Measured) {
    move @0 (point :Point, by :Int8, far :Int64, name :Text, raw :Data, ratio :Float64,
             ratios :List(Float32), flag :Bool, unit :Unit) -> (point :Point);
    kinds @1 (kinds :Kinds) -> (kinds :Kinds);
    plain @2 (plain :Plain) -> (plain :Plain);
    rare @3 (rare :Rare) -> (rare :Rare);
    watch @4 (callback :Callback) -> ();
    open @5 (what :AnyPointer) -> ();

    interface Callback { done @0 () -> (); }
}

struct Outer {
    interface Nothing {}
    const origin :Point = (x = 0);
}

const limit :UInt32 = 5;
const unitPoint :Point = (x = 1);
const outer :Outer = ();
const primes :List(UInt32) = [2, 3];
const units :List(Unit) = [foot];
const unit :Unit = foot;
const name :Text = "workload";
annotation note(struct) :Text;
