"""The statistics of the rig: histograms, tallies, intervals, verdicts (no I/O)."""
