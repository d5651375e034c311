"""``loadtest list``: its options, and what it prints."""

import json
from pathlib import Path

import click

from capnp_rig.loadtest.cli.terminal import failures_in_one_line, read_results_option, stdout


@click.command("list")
@read_results_option
@click.option("--json", "as_json", is_flag=True, help="Print an array with an object per result.")
def list_command(*, results: Path, as_json: bool) -> None:
    """Show what there is in a folder of results, the newest last.

    A name, a folder's name, @last and @previous stand for a result in compare and report. Of
    several results with one name the newest is meant. @previous is the newest result before
    @last that is of the same kind. A + after the commit marks uncommitted changes.
    """
    from capnp_rig.loadtest.report.result_list import list_json, list_table
    from capnp_rig.loadtest.report.terminal import show
    from capnp_rig.loadtest.results.catalog import entries_of

    with failures_in_one_line():
        entries = entries_of(results)
    if as_json:
        click.echo(json.dumps(list_json(entries)))
    elif entries:
        show(stdout(), list_table(entries))
