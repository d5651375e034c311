"""Two connections of Level 1 back to back: `level_1_world` has the model and its rules.

A longer run: ``MACHINE_EXAMPLES=20000 pytest tests/fuzz/test_level_1_machine.py``.
"""

import os
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from level_1_world import EVENT_METHOD, INLINE_METHOD, Side, World

SETTINGS = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "60")),
    stateful_step_count=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# As in test_mutations.
pytestmark = pytest.mark.no_cover

SIDES, PICKS = st.integers(0, 1), st.integers(0, 40)
CAPABILITIES = st.lists(st.integers(0, 90), max_size=3)
METHODS = st.sampled_from([EVENT_METHOD, EVENT_METHOD, INLINE_METHOD])


class Level1Machine(RuleBasedStateMachine):
    """Any interleaving of what both ends may do, with the stream cut anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def side(self, number: int) -> Side:
        return self.world.sides[number]

    @rule(side=SIDES, pick=PICKS, picks=CAPABILITIES, method=METHODS, times=st.integers(1, 2))
    def calls(self, side: int, pick: int, picks: list[int], method: int, times: int) -> None:
        for _ in range(times):
            self.world.call(self.side(side), pick, picks, method)

    @rule(side=SIDES, pick=PICKS, picks=CAPABILITIES, times=st.integers(0, 3))
    def calls_ahead(self, side: int, pick: int, picks: list[int], times: int) -> None:
        self.world.pipeline_calls(self.side(side), pick, picks, times)

    @rule(side=SIDES, pick=PICKS, index=st.sampled_from([0, 0, 0, 1]))
    def pipelines(self, side: int, pick: int, index: int) -> None:
        self.world.pipeline(self.side(side), pick, index)

    @rule(side=SIDES, pick=PICKS)
    def copies(self, side: int, pick: int) -> None:
        self.world.copy(self.side(side), pick)

    @rule(side=SIDES, pick=PICKS, by_collector=st.booleans())
    def releases(self, side: int, pick: int, by_collector: bool) -> None:
        self.world.release(self.side(side), pick, by_collector=by_collector)

    @rule(
        side=SIDES,
        pick=PICKS,
        kind=st.sampled_from(["returns"] * 3 + ["fails", "tail"]),
        picks=CAPABILITIES,
    )
    def answers(self, side: int, pick: int, kind: str, picks: list[int]) -> None:
        self.world.answer(self.side(side), pick, kind, picks)

    @rule(side=SIDES)
    def promises(self, side: int) -> None:
        self.world.promise(self.side(side))

    @rule(
        side=SIDES,
        pick=PICKS,
        kind=st.sampled_from(["becomes"] * 4 + ["drops"]),
        picks=CAPABILITIES,
    )
    def resolves(self, side: int, pick: int, kind: str, picks: list[int]) -> None:
        self.world.resolve(self.side(side), pick, kind, picks)

    @rule(side=SIDES, pick=PICKS)
    def cancels(self, side: int, pick: int) -> None:
        self.world.cancel(self.side(side), pick)

    @rule(side=SIDES, size=st.sampled_from([20, 90, 300, 1000, 5000]))
    def gets(self, side: int, size: int) -> None:
        self.world.transfer(self.side(side), size)

    @rule(side=SIDES)
    def looks_for_events(self, side: int) -> None:
        self.world.feed(self.side(side), b"")

    def teardown(self) -> None:
        self.world.finish()


Level1Machine.TestCase.settings = SETTINGS
TestNothingIsLostLeakedOrOutOfOrder = Level1Machine.TestCase


# What a run does, with how often.
STORM = {
    "ahead": 6,
    "calls": 40,
    "gives": 12,
    "answers": 10,
    "promises": 7,
    "resolves": 9,
    "gets": 30,
}


def storm(seed: int) -> None:
    """Call what is not known yet again and again, while it becomes other things that are not."""
    chance, world = random.Random(seed), World()

    def pick(*kinds: int) -> list[int]:
        # As `World.choose` reads them: 0 is a new object, 3 and 4 what goes back, 5 the unknown.
        return [chance.choice(kinds) + 6 * chance.randrange(20)]

    for _ in range(100):
        side, number = world.sides[chance.randrange(2)], chance.randrange(1000)
        (act,) = chance.choices(list(STORM), list(STORM.values()))
        if act == "ahead":
            world.pipeline_calls(side, number, pick(0, 4, 5), chance.randrange(3))
        elif act == "calls":
            world.call(side, chance.choice([1, 1, 2, 2, 3]) + 4 * number, [], EVENT_METHOD)
        elif act == "gives":
            world.call(side, 4 * number, pick(0, 4, 5, 5), EVENT_METHOD)
        elif act == "answers":
            world.answer(side, number, chance.choice(["returns"] * 5 + ["tail"]), pick(3, 4, 4, 5))
        elif act == "promises":
            world.promise(side)
        elif act == "resolves":
            world.resolve(side, number, "becomes", pick(3, 4, 5, 5))
        else:
            world.transfer(side, chance.choice([60, 150, 300, 600, 2000]))
    world.finish()


# 4 s. Without embargoes one run in five fails, without strict forwarding one in eighty.
@pytest.mark.parametrize("first", [0, 1])
def test_calls_keep_their_order_while_promises_change(first: int) -> None:
    for seed in range(first, max(100, SETTINGS.max_examples), 2):
        storm(seed)
