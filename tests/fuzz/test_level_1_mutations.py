"""Mutated frames of Level 1; `mutate_level_1` has the loop, and more of them."""

import pytest
from fuzz.mutate_level_1 import run

# As in test_mutations.
pytestmark = pytest.mark.no_cover


# 7 s; `tox -e fuzz` runs 2 million.
def test_mutated_frames_of_level_1_end_in_events_or_in_an_end_with_its_reason() -> None:
    outcomes = run(1, 20_000)
    # The loop means something: many connections got through, and all kinds of messages were sent.
    assert outcomes["NoneType"] > 400
    kinds = {"bootstrap", "return", "finish", "call", "abort", "release", "resolve", "disembargo"}
    assert kinds <= set(outcomes)
