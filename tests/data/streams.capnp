@0xd0c1a6f34b7e2951;
# Streaming methods: plain, inherited, and of a generic interface.

interface Upload {
    write @0 (chunk :Data) -> stream;
    end @1 () -> ();
}

interface Sink(T) {
    put @0 (item :T) -> stream;
    size @1 () -> (items :UInt64);
}

interface TextSink extends(Sink(Text), Upload) {}

interface Gate {
    open @0 () -> ();
}

# The gate lets the stream go on, or calls back while it does.
interface Pipe extends(Upload) {
    getGate @0 () -> (gate :Gate);
    follow @1 (gate :Gate) -> ();
}
