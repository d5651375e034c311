@0xc86fd1e07a5b3942;
# What the body of a method costs: all methods take the same params, so they differ in nothing else.

interface Costs {
    struct Request {
        number @0 :Int64;
        text @1 :Text;
        values @2 :List(Float32);
    }

    struct Reply {
        number @0 :Int64;
        text @1 :Text;
        total @2 :Float64;
    }

    nothing @0 Request -> Reply;
    number @1 Request -> Reply;
    coroutine @2 Request -> Reply;
    waiting @3 Request -> Reply;
    length @4 Request -> Reply;
    text @5 Request -> Reply;
    view @6 Request -> Reply;
    copied @7 Request -> Reply;
    sum @8 Request -> Reply;
    floats @9 Request -> Reply;
}
