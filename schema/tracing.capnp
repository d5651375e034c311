@0x983adb77a0acbf73;
# How a client hands its trace to a server of ours. Both sides of it are optional: the bootstrap object
# of a server that traces has these methods beside its own, and another one answers `unimplemented`.

interface Traced {
    next @0 (traceparent :Text, tracestate :Text) -> ();
    # The next Call message on this connection, whatever it calls, belongs to this trace: the two
    # headers of W3C's Trace Context. Without a traceparent, it belongs to none.
}
