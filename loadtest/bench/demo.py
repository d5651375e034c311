"""The demo: a server, Locust on it, and a table of what came out.

Both run as commands in sessions of their own; whatever happens, they are ended by id. The
result is Locust's, with what server and Locust have printed beside it.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from capnp_rig.loadtest.bench.commands import run_locust
from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.engine.child_process import Terminated, last_line, number_of
from capnp_rig.loadtest.engine.server_process import ServerFailed, running_server
from capnp_rig.loadtest.results import Figure, read_run
from capnp_rig.loadtest.results.load_samples import read_figures
from capnp_rig.loadtest.results.writing import make_folder

_LOCUSTFILE = Path(__file__).resolve().parents[1] / "capnp_user.py"


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """How much load, for how long, on how many workers."""

    seconds: int
    users: int
    in_flight: int
    payload_bytes: int
    workers: int
    results: Path
    allow_void: bool = False

    @property
    def title(self) -> str:
        """What is measured, in short."""
        return (
            f"{self.users} users x {self.in_flight} in flight, {self.payload_bytes}-byte texts, "
            f"{self.workers} worker(s), closed loop: times are service times, ramp-up included"
        )


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came out; `failures` counts failed calls by kind."""

    folder: Path
    figures: tuple[Figure, ...]
    failures: Mapping[str, int]
    exit_status: int


def run(config: DemoConfig, *, say: Callable[[str], None]) -> DemoResult:
    """Run the demo and write its result; `say` gets a line of progress now and then.

    Raises:
        BenchError: The server or Locust did not run.
        KeyboardInterrupt, Terminated: It was stopped before Locust had anything to write.
        OSError: The result cannot be written.
    """
    config.results.mkdir(parents=True, exist_ok=True)
    # On the same disk as the result, which is then moved.
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=config.results) as name:
        here = Path(name)
        try:
            with running_server(workers=config.workers, log=here / "server.log") as server:
                say(f"Server at {server.address}, {config.users} users for {config.seconds} s")
                status = _run_locust(config, server.address, here)
        except ServerFailed as error:
            raise BenchError(str(error)) from error
        except (KeyboardInterrupt, Terminated) as stop:
            # Locust has written what it had when it was asked to end.
            if not any(path.is_dir() for path in here.iterdir()):
                raise
            status = 128 + number_of(stop)
        folder = _keep(here, config.results, status)
    document = read_run(folder)
    figures = tuple(read_figures(document))
    failures = document["summary"]["errors_by_kind"]
    return DemoResult(folder, figures, failures, status)


def _run_locust(config: DemoConfig, address: str, here: Path) -> int:
    options = (
        f"--headless --only-summary -u {config.users} -r {config.users} -t {config.seconds}s "
        f"--in-flight {config.in_flight} --payload-bytes {config.payload_bytes}"
    )
    if config.allow_void:
        options += " --allow-void"
    files = ("-f", _LOCUSTFILE, "--csv", here / "locust", "--results", here)
    return run_locust(
        *map(str, files),
        *options.split(),
        "-H",
        address,
        log=here / "locust.log",
        seconds=config.seconds,
    )


def _keep(here: Path, results: Path, status: int) -> Path:
    """Move what Locust wrote to where results are, with the logs in it."""
    written = [path for path in here.iterdir() if path.is_dir()]
    if not written:
        raise BenchError(f"Locust exited with {status}: {last_line(here / 'locust.log')}")
    folder = make_folder(results, written[0].name)
    for path in [*written[0].iterdir(), *here.glob("*.*")]:
        if path.is_file():
            path.rename(folder / path.name)
    return folder
