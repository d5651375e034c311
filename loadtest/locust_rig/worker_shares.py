"""The master's side of `process_share`: it tells each worker which share of the run is its own.

The shares travel among the parsed options, which go along with every order to spawn users. A
message of its own could reach a worker that joins late before that worker listens to it.
"""

import gevent
from locust.env import Environment
from locust.runners import MasterRunner, Runner, WorkerRunner

from capnp_rig.loadtest.locust_rig.process_share import ProcessShare, share_of

# The message that tells the workers of more users.
USERS_MESSAGE = "capnp_rig_users"
_OPTION = "capnp_rig_shares"
_WATCH_S = 0.1


class WorkerShares:
    """The shares of a run, as the master gives them to its workers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._processes = 0
        self._users = 0

    def start(self, environment: Environment, runner: MasterRunner) -> None:
        """Give a share to each worker that is there when a run starts."""
        self._numbers = {name: number for number, name in enumerate(runner.clients)}
        self._processes = len(self._numbers)
        self._users = _target_users(environment, runner.target_user_count)
        self._publish(environment)
        gevent.spawn(self._watch, runner, environment)

    def join(self, environment: Environment, client_id: str) -> None:
        """Give a share to a worker that joins."""
        self._numbers.setdefault(client_id, len(self._numbers))
        self._publish(environment)

    def _publish(self, environment: Environment) -> None:
        shares = {"numbers": self._numbers, "processes": self._processes, "users": self._users}
        setattr(environment.parsed_options, _OPTION, shares)

    def _watch(self, runner: MasterRunner, environment: Environment) -> None:
        # Locust does not say when a run is given more users while it goes on.
        while runner.state not in {"stopping", "stopped"}:
            if runner.target_user_count > self._users:
                self._users = runner.target_user_count
                self._publish(environment)
                runner.send_message(USERS_MESSAGE, {"users": self._users})
            gevent.sleep(_WATCH_S)


def share_here(environment: Environment, runner: Runner | None) -> ProcessShare:
    """Return the share of this process, which makes load; `runner` is None in a debugger."""
    if not isinstance(runner, WorkerRunner):
        users = 1 if runner is None else runner.target_user_count
        return share_of(0, 1, _target_users(environment, users))
    shares = getattr(environment.parsed_options, _OPTION, None)
    assert shares is not None, "master and workers need the same locustfile"
    return share_of(shares["numbers"][runner.client_id], shares["processes"], shares["users"])


def _target_users(environment: Environment, users: int) -> int:
    """Return how many users a run is to have in all, started with `users`."""
    # A shape starts with few.
    return max(users, int(getattr(environment.shape_class, "peak_users", None) or 0))
