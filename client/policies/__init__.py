"""Policies of a channel: each decides one thing, given the time and what happened.

>>> from capnp_rig.client.policies import RetryBudget
>>> budget = RetryBudget(ratio=0.2, per_s=0)
>>> for _ in range(5):
...     budget.deposit(now_s=100.0)
>>> budget.withdraw(now_s=100.0), budget.withdraw(now_s=100.0)
(True, False)
"""

from capnp_rig.client.policies.balance import Balance, RoundRobin
from capnp_rig.client.policies.budget import PROCESS_BUDGET, RetryBudget
from capnp_rig.client.policies.ejection import OutlierEjection
from capnp_rig.client.policies.endpoint import Endpoint
from capnp_rig.client.policies.hedge import Hedge
from capnp_rig.client.policies.limits import ConcurrencyLimit, Deadline, LoadShed
from capnp_rig.client.policies.policy import Attempt, Call, Policy
from capnp_rig.client.policies.retry import Retry

__all__ = [
    "PROCESS_BUDGET",
    "Attempt",
    "Balance",
    "Call",
    "ConcurrencyLimit",
    "Deadline",
    "Endpoint",
    "Hedge",
    "LoadShed",
    "OutlierEjection",
    "Policy",
    "Retry",
    "RetryBudget",
    "RoundRobin",
    "default_stack",
]


def default_stack() -> list[Policy]:
    """Return new policies of each kind that a channel has by default, in their order."""
    return [Deadline(), Retry(), OutlierEjection(), Balance()]
