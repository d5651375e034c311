"""The rivals: the same job as the capnp stack, over the layers that the tutorial walks through.

The job is `server.services.reverse.reverse`: a text comes in and goes out reversed, by code
point. A stack stands in the place of an engine (`server.engines.engine.Engine`), on the same pinned
workers, which are handed the same accepted connections. Each module describes its wire format to
the byte:

    echo        `echo`              every byte comes back as it is
    json        `json_rpc`          JSON values back to back; "Ping" and calls
    http        `http_server`       HTTP/1.1 and HTTP/2, JSON bodies
    grpc        `grpc_server`       gRPC; each worker listens by itself
    selectors   `readiness_worker`  length-prefixed texts, without an event loop

All take texts of up to `limits.MAX_TEXT_BYTES` of UTF-8. What is longer, or unreadable, is answered
in the protocol's own way or ends that connection alone.
"""
