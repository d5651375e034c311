"""A user of one's own whose connection is refused for lack of resources."""

import itertools
import json
import socket
from pathlib import Path

from fake_server import answering, fake_server, finish
from running_locust import run_locust

from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

REFUSED = 3
USER = """
import os
import signal

import gevent
from locust import task
from capnp_rig.loadtest.capnp_user import CapnpUser

class OwnUser(CapnpUser):
    @task
    def own(self):
        for _ in range(20):
            self.call("read", {"request": {"content": "abc"}})
        # The end of the run, which stops this user as well.
        os.kill(os.getpid(), signal.SIGTERM)
        gevent.sleep(30)
"""


def test_a_refused_connection_is_made_anew(tmp_path: Path) -> None:
    """Overloaded may be the answer to a call; here it is the end of the connection."""
    served = answering(lambda _: EMPTY_STRUCT)
    number = itertools.count()

    def behave(connection: socket.socket) -> None:
        if next(number) < REFUSED:
            full = RemoteError("full", ExceptionType.OVERLOADED)
            connection.sendall(encode_abort(full))
            finish(connection)
        else:
            served(connection)

    locustfile = tmp_path / "own_locustfile.py"
    locustfile.write_text(USER)
    with fake_server(behave) as address:
        done = run_locust(
            *("-H", address, "--headless", "--only-summary", "-u", "1", "-t", "30s"),
            *("--results", str(tmp_path / "results"), "--json-file", str(tmp_path / "locust")),
            locustfile=locustfile,
            within_s=50,
        )
    entries = json.loads((tmp_path / "locust.json").read_text())
    (entry,) = [entry for entry in entries if entry["name"] == "MessageStream.read"]
    assert entry["num_failures"] == REFUSED, done.output
    assert entry["num_requests"] >= REFUSED + 20
