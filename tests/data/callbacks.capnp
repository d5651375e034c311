@0xd1b7f0a8c3e59264;

interface Listener { heard @0 (by :Listener) -> (); }
