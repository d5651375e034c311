@0xd4b1f7a26c93e058;
# The tutorial's job on opaque bytes, to be compared with it and with other protocols' ways to
# carry them.

interface Binary {
    reverse @0 (data :Data) -> (data :Data);
    # Answers with the bytes in reverse order.
}
