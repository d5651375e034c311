import pytest

from capnp_rig.server.cpu_share import cpu_quota, workers_for

GROUP = "/sys/fs/cgroup"
V2 = {"/proc/self/cgroup": "0::/system.slice/rig.service\n"}
V1 = {"/proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n1:name=systemd:/x\n"}


@pytest.mark.parametrize(
    ("cpus", "quota", "workers"),
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.1, 1), (2, 4.0, 2), (1, None, 1)],
)
def test_workers_are_as_many_as_there_are_cpus_to_use(
    cpus: int, quota: float | None, workers: int
) -> None:
    assert workers_for(cpus, quota) == workers


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"/proc/self/cgroup": ""}, None),
        (V2, None),
        (V2 | {f"{GROUP}/system.slice/rig.service/cpu.max": "max 100000\n"}, None),
        (V2 | {f"{GROUP}/system.slice/rig.service/cpu.max": "150000 100000\n"}, 1.5),
        # A group above has less.
        (
            V2
            | {
                f"{GROUP}/system.slice/rig.service/cpu.max": "400000 100000\n",
                f"{GROUP}/system.slice/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
        # A container sees its own group as the root.
        ({"/proc/self/cgroup": "0::/\n", f"{GROUP}/cpu.max": "200000 50000\n"}, 4.0),
        # An older one sees the path of the host.
        (V2 | {f"{GROUP}/cpu.max": "200000 100000\n"}, 2.0),
        (V1, None),
        (
            V1
            | {
                f"{GROUP}/cpu/docker/a/cpu.cfs_quota_us": "-1\n",
                f"{GROUP}/cpu/docker/a/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        (
            V1
            | {
                f"{GROUP}/cpu/docker/a/cpu.cfs_quota_us": "250000\n",
                f"{GROUP}/cpu/docker/a/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            V1
            | {f"{GROUP}/cpu/cpu.cfs_quota_us": "100000\n"}
            | {f"{GROUP}/cpu/cpu.cfs_period_us": "100000\n"},
            1.0,
        ),
        # A path may hold colons.
        ({"/proc/self/cgroup": "0::/a:b\n", f"{GROUP}/a:b/cpu.max": "100000 100000\n"}, 1.0),
    ],
)
def test_the_quota_is_the_least_of_all_groups(files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(files.get) == quota
