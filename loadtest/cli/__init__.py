"""The `loadtest` command: load a server, compare what came out, time codecs and engines."""

import click

from capnp_rig.loadtest.cli.bench import (
    bench,
    bench_clients,
    bench_locust,
    bench_peers,
    bench_server,
    bench_servers,
    bench_stacks,
    demo,
)
from capnp_rig.loadtest.cli.compare import compare_results
from capnp_rig.loadtest.cli.listing import list_command
from capnp_rig.loadtest.cli.load import run_command, search_command
from capnp_rig.loadtest.cli.report import report
from capnp_rig.loadtest.cli.sweep import sweep_command

_EXIT_STATUS = (
    "Exit status: 0 good; 1 a failed or wrong call, a --fail-if that holds, or the environment; "
    "2 usage; 3 slower; 4 cannot tell; 5 void; 130 after Ctrl-C, 143 after SIGTERM. Of several the "
    "first of 2, 1, 5, 3, 4 is told."
)


# The help of every option names its default.
@click.group(context_settings={"show_default": True}, epilog=_EXIT_STATUS)
@click.version_option(package_name="capnp-rig", message="%(prog)s %(version)s")
def cli() -> None:
    """Measure: codecs against each other, and a server under load."""


for _command in (
    bench,
    bench_server,
    bench_peers,
    bench_servers,
    demo,
    run_command,
    bench_locust,
    bench_stacks,
    bench_clients,
    search_command,
    sweep_command,
    list_command,
    report,
    compare_results,
):
    cli.add_command(_command)
