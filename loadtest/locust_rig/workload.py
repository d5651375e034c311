"""What the options of a Locust run ask to send. Does not import Locust."""

from argparse import Namespace

from capnp_rig.loadtest.workload import WorkloadConfig, read_corpus, read_params_argument


def workload_config(options: Namespace) -> WorkloadConfig:
    """Return what to call, from the rig's options of Locust; reads the files that they name.

    Raises:
        WorkloadError: A file cannot be read.
    """
    return WorkloadConfig(
        schema=options.schema,
        import_path=options.import_path,
        interface=options.interface,
        method=options.method,
        params=_argument(options.params),
        expect=_argument(options.expect),
        payload_bytes=options.payload_bytes,
        text=options.text,
        corpus=read_corpus(options.corpus) if options.corpus else None,
        seed=options.data_seed,
        payload_kind=options.payload_kind,
        via=options.via or None,
        pipeline=options.pipeline,
        max_message_bytes=options.max_message,
    )


def _argument(text: str | None) -> str | None:
    # The web form sends an empty text for what is not given.
    return read_params_argument(text) if text else None
