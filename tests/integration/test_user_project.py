"""A user's project whose folders have the names of ours: it is served and called all the same."""

import subprocess
import sys
from pathlib import Path

import pytest
from running_server import running_server

FILES = {
    "schema/__init__.py": """
from pathlib import Path
from capnp_rig import load_schema

Adder = load_schema(Path(__file__).parent / "adder.capnp").Adder
""",
    "schema/adder.capnp": """
@0xe8c2a91b5d7f4036;
interface Adder { add @0 (left :Int32, right :Int32) -> (sum :Int32); }
""",
    "server/__init__.py": "",
    "server/app.py": """
from capnp_rig import ServiceError
from schema import Adder

class Service:
    interface = Adder

    def add(self, params):
        if params.left < 0:
            raise ServiceError("no negative numbers")
        return {"sum": params.left + params.right}
""",
    "client/__init__.py": "",
    "client/ask.py": """
import asyncio
import sys
from capnp_rig import AsyncClient, Client, RemoteError
from schema import Adder

address = sys.argv[1]
with Client.connect(address, interface=Adder) as client:
    print(client.call("add", {"left": 2, "right": 3}).sum)
    try:
        client.call("add", {"left": -1})
    except RemoteError as error:
        print(error)

async def ask():
    async with await AsyncClient.connect(address, interface=Adder) as client:
        print((await client.call("add", {"left": 20, "right": 3})).sum)

asyncio.run(ask())
""",
}


# Both engines get the service from the same modules.
@pytest.mark.parametrize("engine", ["wire", pytest.param("pycapnp", marks=pytest.mark.nightly)])
def test_a_project_with_folders_called_as_ours_is_served_and_called(
    tmp_path: Path, engine: str
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    options = ["--service", "server.app:Service", "--engine", engine, "--workers", "1"]
    with running_server(*options, cwd=tmp_path) as server:
        done = subprocess.run(
            [sys.executable, "-m", "client.ask", f"127.0.0.1:{server.port}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("5\nno negative numbers\n23\n", "")
