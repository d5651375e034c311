"""A fork after `AsyncClient` has connected: the child leaves the parent's calls alone (F-7)."""

import gc
import os
import socket
import subprocess
import sys

import pytest
from fake_server import answering, fake_server
from running_server import ROOT, environment

from capnp_rig.client.forks import Owner, keep_from_children
from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface

READ = compile_interface(message.MessageStream).methods["read"]


def reverse(called: Called) -> EncodedStruct:
    text = READ.params.open(called.params).request.content
    return READ.results.write({"chunk": text[::-1].encode()})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_f7_a_forked_child_leaves_the_parents_connection_alone(loop: str) -> None:
    with fake_server(answering(reverse)) as address:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "forking_client.py"), address, loop],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=environment(),
        )
    *children, last = done.stdout.splitlines()
    assert last == "wrong 0", done.stderr
    names = ("call", "close", "collect", "shut_down", "unwind")
    if loop == "uvloop" and "unwind -6" in children:
        # Now and then libuv aborts a child that unwinds its parent's loop, without our doing.
        children[children.index("unwind -6")] = "unwind 0"
    assert sorted(children) == [f"{name} 0" for name in names]
    assert done.returncode == 0


def test_f7_a_child_has_no_copy_of_a_guarded_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        keep_from_children(ours)
        number, reader, writer = ours.fileno(), *os.pipe()
        pid = os.fork()
        if pid == 0:
            # Its number stays taken, by a socket that leads nowhere: nobody else's gets it.
            status = 1
            try:
                here = ours.fileno() == number
                theirs.close()
                status = 0 if here and ours.recv(1) == b"" else 2
                ours.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            finally:
                gc.collect()
                os.write(writer, bytes([status]))
                os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert os.read(reader, 1) == b"\0"
        os.close(reader)
        os.close(writer)
        theirs.sendall(b"still here")
        assert ours.recv(100) == b"still here"


def test_f7_a_closed_socket_is_nobodys_business() -> None:
    ours, theirs = socket.socketpair()
    keep_from_children(ours)
    ours.close()
    theirs.close()
    with socket.socket() as other:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if other.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_the_owner_is_the_process_that_made_it() -> None:
    owner = Owner()
    owner.check()
    assert owner.is_here
