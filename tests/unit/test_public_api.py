"""What a project imports: the names are there, typed, and a mistake with them is told."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sample_runs import Fake, make_run, write_run_folder

import capnp_rig
from capnp_rig import AsyncClient, Client, NotAnInterface, ResultError, load_schema, read_result
from capnp_rig.schema import message

PACKAGES = ["", ".client", ".loadtest", ".schema", ".server", ".wire"]
SCRIPT = """
import sys
package = __import__("importlib").import_module(sys.argv[1])
print([name for name in package.__all__ if getattr(package, name, None) is None])
try:
    package.no_such_name
except AttributeError as error:
    print(error)
"""


@pytest.mark.parametrize("package", [f"capnp_rig{name}" for name in PACKAGES])
def test_every_exported_name_is_there_and_no_other(package: str) -> None:
    # In a process of its own: the load rig's users import locust, which patches it.
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, package],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"[]\nmodule '{package}' has no attribute 'no_such_name'\n"
    assert done.returncode == 0, done.stderr


NOT_INTERFACES = [
    (message, "message.capnp is a module, not an interface"),
    (message.MessageStream.MessageContent, "MessageStream.MessageContent is a struct, not an"),
    ("MessageStream", "'MessageStream' is of type str, not an interface"),
    ([], r"\[\] is of type list, not an interface"),
    (capnp_rig, "capnp_rig is a module, not an interface"),
    (None, "there is no interface"),
]


@pytest.mark.parametrize(("wrong", "reason"), NOT_INTERFACES)
def test_what_is_no_interface_is_refused_before_anything_is_connected(
    wrong: Any, reason: str
) -> None:
    with pytest.raises(NotAnInterface, match=reason):
        Client.connect("unix:/nowhere", interface=wrong)
    with pytest.raises(NotAnInterface, match=reason):
        asyncio.run(AsyncClient.connect("unix:/nowhere", interface=wrong))


def test_a_result_is_read_with_its_figures(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "result", make_run(Fake()))
    result = read_result(str(folder))
    assert result.kind == "run"
    assert [figure.name for figure in result.figures] == [
        plain["name"] for plain in result.document["figures"]
    ]
    assert result.figures
    (folder / "run.json").write_text("{}")
    with pytest.raises(ResultError):
        read_result(folder)


def test_load_schema_opens_a_file_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "adder.capnp").write_text(
        "@0xa6f8c0e1d2b34975;\ninterface Adder { add @0 (left :Int32) -> (sum :Int32); }"
    )
    assert load_schema(tmp_path / "adder.capnp").Adder.schema.method_names == ("add",)
