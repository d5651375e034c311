"""Calls and attempts as policies get them, ended at given times."""

from capnp_rig.client.policies import Attempt, Call, Endpoint
from capnp_rig.objects.errors import ClientError
from capnp_rig.rigcli.address import parse_address


def endpoint(port: int = 1) -> Endpoint:
    return Endpoint(parse_address(f"a:{port}"))


def call(*, now_s: float = 0.0, timeout_s: float = 15.0, is_idempotent: bool = False) -> Call:
    begun = Call("read", now_s, timeout_s)
    begun.is_idempotent = is_idempotent
    begun.attempts = 1
    return begun


def attempt(
    where: Endpoint,
    error: ClientError | None = None,
    *,
    began_s: float = 0.0,
    ended_s: float = 0.001,
    of: Call | None = None,
    was_given_up: bool = False,
) -> Attempt:
    made = Attempt(of or call(now_s=began_s), where, None, began_s)
    made.ended_s, made.error, made.was_given_up = ended_s, error, was_given_up
    return made
