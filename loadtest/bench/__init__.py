"""The benchmarks: codecs, engines, stacks and Locust users, in pairs of fresh processes."""
