@0xc2b95d1e7f0a4831;
# Answers much to little.

interface Reader {
    read @0 () -> (data :Data);
    follow @1 (reader :Reader) -> ();
}
