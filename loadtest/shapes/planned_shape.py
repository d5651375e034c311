"""What the shapes have in common: a plan, made of options, followed second by second."""

from abc import abstractmethod
from argparse import Namespace
from typing import Any

from locust import LoadTestShape, events
from locust.env import Environment

from capnp_rig.loadtest.locust_rig.shape_plan import Plan

# Locust warns above that.
_MOST_SPAWNED_PER_S = 100.0


class PlannedShape(LoadTestShape):
    """A shape that follows a plan.

    Of Locust's own options -r says how fast users come and go (otherwise at once, but for 100 a
    second), and -t ends the run earlier.
    """

    abstract = True
    use_common_options = True
    # Whether -r was given. Without a web page, Locust's default is one user a second.
    has_spawn_rate = True

    @abstractmethod
    def plan(self, options: Namespace) -> Plan:
        """Return the plan that the options ask for."""

    def users_at(self, at_s: float) -> int | None:
        """Return how many users there are, None when the run is over."""
        return self.plan(self.options).users_at(at_s)

    @property
    def peak_users(self) -> int:
        """The most users that there are at a time."""
        return self.plan(self.options).peak_users

    @property
    def options(self) -> Namespace:
        """The options of the run."""
        runner: Any = self.runner
        options = runner.environment.parsed_options
        assert isinstance(options, Namespace)
        return options

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are to be, and how fast they come, as Locust asks."""
        at_s: float = self.get_run_time()  # type: ignore[no-untyped-call]
        if self.options.run_time and at_s >= self.options.run_time:
            return None
        users = self.users_at(at_s)
        return None if users is None else (users, self.spawn_rate())

    def spawn_rate(self) -> float:
        """Return how many users come or go per second."""
        rate = self.options.spawn_rate if self.has_spawn_rate else None
        return float(rate or _MOST_SPAWNED_PER_S)


def _on_init(environment: Environment, **_: object) -> None:
    # Afterwards nobody knows any more whether -r was given.
    shape, options = environment.shape_class, environment.parsed_options
    if isinstance(shape, PlannedShape) and environment.web_ui is None:
        shape.has_spawn_rate = options is not None and options.spawn_rate is not None


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init.add_listener(_on_init)
