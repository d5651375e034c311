"""How many users at which time: the load of each shape, as plain numbers (no I/O).

Times are seconds since the run began. A plan answers None when it is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from capnp_rig.loadtest.stats.histogram import us_of
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary
from capnp_rig.loadtest.stats.thresholds import Threshold


class Plan(Protocol):
    """Something that knows how many users there are."""

    @property
    def peak_users(self) -> int:
        """The most users that there are at a time."""

    def users_at(self, at_s: float) -> int | None:
        """Return how many users there are, None when it is over."""


@dataclass(frozen=True, slots=True)
class Steps:
    """`count` steps of `step_s` each, each with `users` more than the one before."""

    users: int
    step_s: float
    count: int

    @property
    def peak_users(self) -> int:
        """The users of the last step."""
        return self.users * self.count

    def users_at(self, at_s: float) -> int | None:
        """Return how many users there are, None after the last step."""
        step = int(at_s // self.step_s)
        return self.users * (step + 1) if step < self.count else None


@dataclass(frozen=True, slots=True)
class Spike:
    """`base` users, from `at_s` on `peak` of them for `for_s`, and `base` again for `after_s`."""

    base: int
    peak: int
    at_s: float
    for_s: float
    after_s: float

    @property
    def peak_users(self) -> int:
        """The most users that there are at a time."""
        return max(self.base, self.peak)

    def users_at(self, at_s: float) -> int | None:
        """Return how many users there are, None in the end."""
        back_s = self.at_s + self.for_s
        if at_s >= back_s + self.after_s:
            return None
        return self.peak if self.at_s <= at_s < back_s else self.base


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a ramp: how many users from when to when, what they saw, and what failed."""

    users: int
    from_s: float
    until_s: float
    seen: Summary
    violations: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether no condition failed."""
        return not self.violations

    def to_json(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps of it; times in µs."""
        return {
            "users": self.users,
            "from_s": self.from_s,
            "until_s": self.until_s,
            "calls": self.seen.calls,
            "errors": self.seen.errors,
            "calls_per_s": self.seen.calls_per_s,
            "response_p50_us": us_of(self.seen.response.percentile_ns(50)),
            "response_p99_us": us_of(self.seen.response.percentile_ns(99)),
            "generator_busy": self.seen.busy,
            "held": self.held,
            "violations": list(self.violations),
        }

    def __str__(self) -> str:
        p99_us = us_of(self.seen.response.percentile_ns(99))
        times = "" if p99_us is None else f", p99 {p99_us:,.0f} µs"
        return f"{self.users} users, {self.seen.calls_per_s:,.0f} calls/s{times}"


# A step's first second is its users' arrival.
_SETTLING_S = 1


@dataclass(slots=True)
class Ramp:
    """Steps of `users` more each, until a condition fails or there are `most` users.

    `see` returns what was seen from one time to another. `done` has the steps that were judged,
    each by what came after its first second.
    """

    users: int
    step_s: float
    most: int
    conditions: tuple[Threshold, ...]
    see: Callable[[float, float], Summary]
    done: list[Step] = field(default_factory=list)
    _began_s: float | None = None

    @property
    def peak_users(self) -> int:
        """The users with which it ends if all steps hold."""
        return self.most

    @property
    def users_now(self) -> int:
        """The users of the step that is under way."""
        return min(self.users * (len(self.done) + 1), self.most)

    def users_at(self, at_s: float) -> int | None:
        """Return how many users there are, None when it is over; judge a step that has ended."""
        if self._began_s is None:
            self._began_s = at_s
        if at_s < self._began_s + self.step_s:
            return self.users_now
        from_s, until_s = self._began_s + _SETTLING_S, self._began_s + self.step_s
        seen = self.see(from_s, until_s)
        checked = (condition.violation(seen) for condition in self.conditions)
        violations = tuple(violation for violation in checked if violation is not None)
        self.done.append(Step(self.users_now, from_s, until_s, seen, violations))
        self._began_s = at_s
        if violations or self.done[-1].users >= self.most:
            return None
        return self.users_now

    @property
    def highest(self) -> Step | None:
        """The last step that held, None where none did."""
        held = [step for step in self.done if step.held]
        return held[-1] if held else None

    @property
    def failed(self) -> Step | None:
        """The step that failed, None where none has."""
        return next((step for step in self.done if not step.held), None)

    @property
    def answer(self) -> str:
        """What the ramp found, in a sentence."""
        highest, failed = self.highest, self.failed
        if failed is None:
            held = "nothing was judged" if highest is None else f"all held, up to {highest}"
            return f"{held}; no limit was found"
        why = "; ".join(failed.violations)
        if failed.seen.busy > LIMITS["busy"]:
            why += f" (the generator was {failed.seen.busy:.0%} busy: the server may hold more)"
        if highest is None:
            return f"even {failed.users} users failed: {why}"
        return f"the highest step that held: {highest}; at {failed.users} users: {why}"

    def to_json(self) -> dict[str, Any]:
        """Return what ``run.json`` keeps of the ramp; `highest` is None where no step held."""
        highest, failed = self.highest, self.failed
        return {
            "conditions": [condition.text for condition in self.conditions],
            "steps": [step.to_json() for step in self.done],
            "highest_users": None if highest is None else highest.users,
            "failed_users": None if failed is None else failed.users,
            "answer": self.answer,
        }
