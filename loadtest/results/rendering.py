"""The files that are made of a result's ``run.json`` and samples, once those are written."""

from pathlib import Path


def render_folder(folder: Path) -> tuple[str, ...]:
    """Write ``latency.hlog``, ``latency.hgrm`` and ``report.html``; return what could not be.

    Raises:
        OSError: They cannot be written.
    """
    # Only in the end: a run is not kept waiting for what it may not need.
    from capnp_rig.loadtest.results.hdr_files import HdrMissing, write_hdr_files
    from capnp_rig.loadtest.results.report import write_report

    notes = []
    try:
        write_hdr_files(folder)
    except HdrMissing as error:
        notes.append(str(error))
    write_report(folder)
    return tuple(notes)
