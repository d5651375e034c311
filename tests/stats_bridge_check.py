"""Tells Locust's statistics of the same calls one by one and in bulk; prints both as JSON.

In a process of its own: importing Locust patches the process.
"""

import json
import random
import time
from typing import Any
from unittest import mock

import locust.stats
from locust.env import Environment

from capnp_rig.loadtest.locust_rig.milliseconds import bucket_ms
from capnp_rig.loadtest.locust_rig.stats_bridge import REQUEST_TYPE, StatsBridge
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.objects.errors import Disconnected, RemoteError

locust.stats.bucket_response_time = bucket_ms  # type: ignore[assignment] # as the rig does

START_S = 1_700_000_000
NAMES = ("Foo.bar", "Foo.baz")
REPLY_BYTES = 100
ERRORS = (Disconnected("gone"), RemoteError("failed: no"), WrongReply("wrong reply"))


def calls() -> list[tuple[str, int, int, Exception | None]]:
    """Return name, duration and end, in ns, and error of 6,000 calls over 3.5 s."""
    rng = random.Random(1)
    found = []
    for number in range(6_000):
        # From 200 ns to 200 s, and never on the edge of a bucket, where rounding would decide.
        time_ns = int(10 ** rng.uniform(2.3, 11.3)) // 500 * 500 + 123
        error = rng.choice(ERRORS) if rng.random() < 0.05 else None
        found.append((rng.choice(NAMES), time_ns, number * 583_000, error))
    return found


def environment() -> Environment:
    made = Environment()
    made.create_local_runner()
    return made


def one_by_one() -> dict[str, Any]:
    made = environment()
    for name, time_ns, ended_ns, error in calls():
        with mock.patch.object(time, "time", return_value=START_S + ended_ns / 1e9):
            made.events.request.fire(
                request_type=REQUEST_TYPE,
                name=name,
                response_time=time_ns / 1e6,
                response_length=0 if error else REPLY_BYTES,
                exception=error,
            )
    return plain(made)


def in_bulk(every: int) -> dict[str, Any]:
    made = environment()
    bridge = StatsBridge(made)
    bridge.epoch_ns = START_S * 1_000_000_000
    waiting: dict[str, list[tuple[int, int, int]]] = {name: [] for name in NAMES}
    for number, (name, time_ns, ended_ns, error) in enumerate(calls(), 1):
        if error is None:
            waiting[name].append((ended_ns - time_ns, ended_ns - 1, ended_ns))
        else:
            bridge.entry(name).failed(error, ended_ns - time_ns, ended_ns)
        if number % every == 0:
            for each, found in waiting.items():
                if found:
                    bridge.entry(each).answered(found)
                    bridge.entry(each).received_bytes += REPLY_BYTES * len(found)
                    found.clear()
            bridge.add()
    return plain(made)


def plain(made: Environment) -> dict[str, Any]:
    stats = made.stats
    found: dict[str, Any] = {}
    for entry in (*stats.entries.values(), stats.total):
        kept = {key: value for key, value in entry.serialize().items() if key != "start_time"}
        for key in ("response_times", "num_reqs_per_sec", "num_fail_per_sec"):
            kept[key] = sorted(kept[key].items())
        kept["median"] = entry.median_response_time
        kept["p99"] = entry.get_response_time_percentile(0.99)
        found[entry.name] = kept
    errors = stats.serialize_errors()
    found["errors"] = sorted(errors.items())
    return found


def heard() -> list[Any]:
    """Return what somebody who listens is told of three calls, and what Locust counts."""
    made = environment()
    told: list[Any] = []

    def listen(name: str, response_time: float, response_length: int, **more: Any) -> None:
        told.append([name, response_time, response_length, repr(more["exception"])])

    made.events.request.add_listener(listen)
    bridge = StatsBridge(made)
    entry = bridge.entry("Foo.bar")
    entry.failed(ERRORS[0], 1_000_000, 2_000_000)
    entry.answered([(0, 500_000, 1_500_000), (0, 600_000, 3_500_000)])
    entry.received_bytes += 7
    bridge.add()
    bridge.add()
    told.append(made.stats.total.num_requests)
    return told


if __name__ == "__main__":
    print(json.dumps([one_by_one(), in_bulk(1), in_bulk(1000), heard()]))  # noqa: T201
