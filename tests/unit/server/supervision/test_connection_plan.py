import pytest

from capnp_rig.server.supervision.launch import plan_connections


@pytest.mark.parametrize(
    ("wanted", "soft", "hard", "plan"),
    [
        (100, 1024, 4096, (100, 1024)),
        (10_000, 1024, 1_048_576, (10_000, 20_064)),
        (10_000, 1024, 4096, (2048, 4096)),
        (10_000, 1024, 1024, (512, 1024)),
        (10_000, 100_000, 100_000, (10_000, 100_000)),
        (5, 1, 1, (1, 1)),
    ],
)
def test_connections_stay_within_half_of_the_open_files(
    wanted: int, soft: int, hard: int, plan: tuple[int, int]
) -> None:
    assert plan_connections(wanted, soft, hard) == plan
