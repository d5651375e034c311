from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.loadtest.locust_rig.workload import workload_config
from capnp_rig.loadtest.workload import WorkloadConfig, WorkloadError


def options(**changes: Any) -> Namespace:
    plain = {
        **dict.fromkeys(("schema", "import_path", "interface", "method")),
        **dict.fromkeys(("params", "expect", "corpus", "via")),
        "payload_bytes": 64,
        "max_message": 4 << 20,
        "text": "",
        "data_seed": 3,
        "payload_kind": "text",
        "pipeline": False,
    }
    return Namespace(**{**plain, **changes})


def test_options_become_a_config() -> None:
    assert workload_config(options()) == WorkloadConfig(payload_bytes=64, seed=3)
    # An empty field of the web form is none.
    assert workload_config(options(params="", corpus="", via="")) == workload_config(options())
    assert workload_config(options(payload_kind="binary")).payload_kind == "binary"
    assert workload_config(options(max_message=8 << 20)).max_message_bytes == 8 << 20
    given = {"schema": "a.capnp", "interface": "Foo", "method": "bar", "params": "{}"}
    given["via"] = "login().session"
    config = workload_config(options(**given, pipeline=True))
    assert config == WorkloadConfig(payload_bytes=64, seed=3, pipeline=True, **given)


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": 1}')
    (tmp_path / "corpus").write_text("ä\nb")
    found = workload_config(
        options(params=f"@{tmp_path}/p.json", expect="{}", corpus=f"{tmp_path}/corpus")
    )
    assert (found.params, found.expect, found.corpus) == ('{"a": 1}', "{}", "ä\nb")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"params": "@/no/such"}, "cannot read /no/such: No such file or directory"),
        ({"corpus": "/no/such"}, "cannot read /no/such: No such file or directory"),
        ({"corpus": "binary"}, "cannot read binary: it is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    given: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary").write_bytes(b"\xff")
    with pytest.raises(WorkloadError) as caught:
        workload_config(options(**given))
    assert str(caught.value) == reason
