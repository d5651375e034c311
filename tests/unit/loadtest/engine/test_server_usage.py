from types import SimpleNamespace
from typing import Any

import pytest

from capnp_rig.loadtest.engine import server_usage
from capnp_rig.loadtest.engine.server_usage import WatchedProcess, endpoint_cpu_s, local_servers
from capnp_rig.loadtest.stats.process_use import Usage, is_supervisor
from capnp_rig.rigcli.address import Address, parse_addresses


def watched(name: str, pid: int, *endpoints: str) -> WatchedProcess:
    process: Any = SimpleNamespace(pid=pid)
    return WatchedProcess(name, process, endpoints)


def used(**cpu_s: float) -> list[Usage]:
    return [Usage(name, int(name[1:]), value, 1) for name, value in cpu_s.items()]


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = {
        Address("a", 1): [watched("supervisor", 1), watched("worker 0", 2)],
        Address("b", 2): [watched("server", 3)],
        # The same process listens at both.
        Address("c", 3): [watched("server", 4)],
        Address("d", 4): [watched("server", 4)],
    }
    monkeypatch.setattr(server_usage, "local_server", lambda address: servers.get(address, []))


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("text", "processes"),
    [
        ("a:1", [("supervisor", 1, ()), ("worker 0", 2, ())]),
        (
            "a:1,b:2",
            [
                ("a:1 supervisor", 1, ("a:1",)),
                ("a:1 worker 0", 2, ("a:1",)),
                ("b:2 server", 3, ("b:2",)),
            ],
        ),
        ("c:3,d:4", [("c:3 server", 4, ("c:3", "d:4"))]),
        # One is not on this machine.
        ("a:1,x:9", []),
    ],
)
def test_processes_of_several_servers_have_their_addresses(
    text: str, processes: list[tuple[str, int, tuple[str, ...]]]
) -> None:
    seen = local_servers(parse_addresses(text))
    assert [(each.name, each.process.pid, each.endpoints) for each in seen] == processes


def test_each_endpoint_has_the_cpu_time_of_its_processes_where_that_is_known() -> None:
    processes = [
        *(watched("a", 1, "a"), watched("a", 2, "a"), watched("b", 3, "b")),
        *(watched("c", 4, "c", "d"), watched("c", 5, "c")),
    ]
    before = used(p1=1.0, p2=1.0, p3=5.0, p4=1.0, p5=1.0)
    after = used(p1=1.5, p2=2.0, p4=2.0, p5=2.0)
    # One process of b has ended, and c shares one with d.
    assert endpoint_cpu_s(processes, before, after) == {"a": 1.5}
    assert endpoint_cpu_s([watched("server", 1)], before, after) == {}


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("supervisor", True), ("a:1 supervisor", True), ("a:1 worker 0", False), ("server", False)],
)
def test_a_supervisor_is_known_with_and_without_its_address(name: str, is_one: bool) -> None:
    assert is_supervisor(name) is is_one
