"""What a running server makes of orders: one change at a time, all of it or nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from capnp_rig.rigcli.address import Address
from capnp_rig.server.config import ConfigError, ServerConfig, TlsOptions
from capnp_rig.server.control.messages import Setup
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.plan import Plan
from capnp_rig.server.supervision.reload import Changes, merged
from capnp_rig.server.supervision.succession import Done, FailedStart

CONFIG = ServerConfig(Address(host="127.0.0.1", port=0), workers=2)


def test_a9_a_reload_keeps_what_only_a_restart_changes() -> None:
    wanted = replace(
        CONFIG, address=Address(host="::1", port=1), log_level="debug", drain_timeout_s=5.0
    )
    assert merged(CONFIG, wanted) == (
        replace(CONFIG, drain_timeout_s=5.0),
        ["address", "log_level"],
    )


def test_b17_a_reload_changes_certificates_but_neither_begins_nor_ends_tls() -> None:
    one, other = (replace(CONFIG, tls=TlsOptions(tls_cert=name)) for name in ("a.pem", "b.pem"))
    assert merged(one, other) == (other, [])
    assert merged(one, CONFIG) == (one, ["tls_cert"])
    assert merged(CONFIG, one) == (CONFIG, ["tls_cert"])


class Worker:
    def __init__(self, index: int) -> None:
        self.name = f"Worker {index}"


class FakeWorkers:
    """Starts what it is told when the test says so."""

    replaces = True

    def __init__(self, count: int) -> None:
        self.count = count
        self.under_way: list[tuple[int, list[int], Done]] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Worker:
        return Worker(index)

    def succeed(self, setups: Sequence[Setup], places: Sequence[int], done: Done) -> None:
        assert self.under_way == []
        self.under_way.append((len(setups), list(places), done))

    def finish(self, failure: FailedStart | None = None) -> tuple[int, list[int]]:
        ((count, places, done),) = self.under_way
        self.under_way = []
        if failure is None:
            self.count = count
        done(failure)
        return count, places


class Lines:
    """A log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _add(self, event: str, /, **_: object) -> None:
        self.lines.append(event)

    info = warning = error = _add


class Rig:
    def __init__(self) -> None:
        self.workers = FakeWorkers(2)
        self.log = Lines()
        self.config: ServerConfig | ConfigError = CONFIG
        self.applied: list[Plan] = []
        self.changes = Changes(
            CONFIG,
            cast("Any", self.workers),
            cast("Any", self.log),
            ServiceManager(),
            plan=lambda config: Plan(
                config, [cast("Any", place) for place in range(config.workers)], 10
            ),
            reread=self.reread,
            apply=self.applied.append,
        )

    def reread(self) -> ServerConfig:
        if isinstance(self.config, ConfigError):
            raise self.config
        return self.config

    async def finish(self, failure: FailedStart | None = None) -> tuple[int, list[int]]:
        result = self.workers.finish(failure)
        # The next change begins in the next turn.
        await asyncio.sleep(0)
        return result


def in_loop(test: Callable[[Rig], Any]) -> Callable[[], None]:
    def run() -> None:
        async def body() -> None:
            await test(Rig())

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@in_loop
async def test_a8_a_reload_replaces_all_and_the_next_one_waits(rig: Rig) -> None:
    rig.changes.reload()
    rig.config = replace(CONFIG, drain_timeout_s=1.0)
    for _ in range(3):
        rig.changes.reload()
    assert await rig.finish() == (2, [0, 1])
    assert await rig.finish() == (2, [0, 1])
    assert rig.workers.under_way == []
    assert [plan.config.drain_timeout_s for plan in rig.applied] == [30.0, 1.0]


@in_loop
async def test_a9_a_configuration_that_cannot_be_read_starts_nothing(rig: Rig) -> None:
    rig.config = ConfigError("rig.toml: line 3: no such option")
    rig.changes.reload()
    assert rig.workers.under_way == []
    assert rig.log.lines == [
        "Not reloaded, the workers serve on as they are: rig.toml: line 3: no such option"
    ]


@in_loop
async def test_a9_workers_that_do_not_start_change_nothing(rig: Rig) -> None:
    rig.config = replace(CONFIG, workers=4)
    rig.changes.reload()
    await rig.finish(FailedStart("no module named 'x'"))
    assert rig.applied == []
    assert rig.log.lines[-1].endswith("serve on as they are: no module named 'x'")
    # The wish for four workers has gone with it.
    rig.changes.resize(1)
    assert await rig.finish() == (3, [2])


@in_loop
async def test_a10_workers_are_added_and_taken_away_never_below_one(rig: Rig) -> None:
    for _ in range(10):
        rig.changes.resize(1)
    assert await rig.finish() == (3, [2])
    assert await rig.finish() == (12, list(range(3, 12)))
    for _ in range(20):
        rig.changes.resize(-1)
    assert await rig.finish() == (11, [])
    assert await rig.finish() == (1, [])
    rig.changes.resize(-1)
    assert rig.workers.under_way == []


@in_loop
async def test_a10_a_reload_keeps_the_number_of_workers_unless_it_was_configured(rig: Rig) -> None:
    rig.changes.resize(1)
    await rig.finish()
    rig.changes.reload()
    assert await rig.finish() == (3, [0, 1, 2])
    rig.config = replace(CONFIG, workers=1)
    rig.changes.reload()
    assert await rig.finish() == (1, [0])


@in_loop
async def test_a14_one_worker_is_replaced_at_a_time_and_a_failure_is_not_repeated_at_once(
    rig: Rig,
) -> None:
    assert rig.changes.may_recycle
    rig.changes.recycle(1, "it is old")
    assert not rig.changes.may_recycle
    assert await rig.finish() == (2, [1])
    assert rig.changes.may_recycle
    rig.changes.recycle(0, "it is old")
    await rig.finish(FailedStart("out of memory"))
    assert rig.log.lines[-1] == "Worker 0 serves on, it cannot be replaced: out of memory"
    assert not rig.changes.may_recycle


@in_loop
async def test_nothing_begins_when_the_server_ends(rig: Rig) -> None:
    rig.workers.replaces = False
    rig.changes.reload()
    rig.changes.resize(1)
    assert rig.workers.under_way == []


@pytest.mark.parametrize("field", ["stack", "backlog", "insecure", "log_format"])
def test_a9_each_fixed_field_is_told(field: str) -> None:
    wanted = replace(CONFIG, **{field: "another"})  # type: ignore[arg-type]
    assert merged(CONFIG, wanted) == (CONFIG, [field])
