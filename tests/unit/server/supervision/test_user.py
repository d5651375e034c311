import os
import pwd
import socket
import sys
from typing import Any

import pytest

from capnp_rig.rigcli.address import Address
from capnp_rig.server.supervision.launch import _own_sockets
from capnp_rig.server.supervision.listener import Listener
from capnp_rig.server.supervision.user import User, UserError, become, find_user

ROOT = pwd.getpwuid(0)
NOBODY = User("nobody", 65534, 65534, (65534,), "/nonexistent")


def test_a_user_has_its_own_groups_and_home() -> None:
    groups = tuple(os.getgrouplist(ROOT.pw_name, ROOT.pw_gid))
    user = User(ROOT.pw_name, 0, ROOT.pw_gid, groups, ROOT.pw_dir)
    assert find_user(ROOT.pw_name) == user
    assert find_user("0") == user


def test_a_group_may_be_named() -> None:
    user = find_user("0:12345")
    assert (user.uid, user.gid, 12345 in user.groups) == (0, 12345, True)


def test_numbers_need_no_entry() -> None:
    assert find_user("4123456789:5") == User("4123456789", 4123456789, 5, (5,), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such-user", "there is no user 'no-such-user'"),
        ("", "there is no user ''"),
        ("-1", "there is no user '-1'"),
        ("0:no-such-group", "there is no group 'no-such-group'"),
        # They are more than the kernel has; the first one means "no change" to it.
        ("4294967295:5", "there is no user '4294967295'"),
        ("4294967296:5", "there is no user '4294967296'"),
        (f"{'9' * 5000}:5", f"there is no user '{'9' * 5000}'"),
        ("0:4294967295", "there is no group '4294967295'"),
        ("0:4294967296", "there is no group '4294967296'"),
        # A file can hold it.
        ("a\0b", "there is no user 'a\\x00b'"),
        ("0:a\0b", "there is no group 'a\\x00b'"),
        (
            "4123456789",
            "user 4123456789 has no entry and so no group: name one, 4123456789:GROUP",
        ),
    ],
)
def test_who_is_not_there_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        find_user(text)
    assert str(raised.value) == message


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of a system that grants everything."""
    asked: list[tuple[Any, ...]] = []
    for name in ("chown", "setgroups", "setresgid", "setresuid", "setuid", "setgid"):

        def record(*args: Any, name: str = name, **_options: Any) -> None:
            asked.append((name, *args))

        monkeypatch.setattr(os, name, record)
    monkeypatch.setattr(os, "environ", {})
    return asked


def test_h6_a_server_that_could_become_root_again_does_not_start(
    calls: list[tuple[Any, ...]],
) -> None:
    with pytest.raises(UserError, match="user nobody could become root again"):
        become(NOBODY, ["/run/s", "/run/m"])
    assert calls == [
        ("chown", "/run/s", 65534, 65534),
        ("chown", "/run/m", 65534, 65534),
        ("setgroups", (65534,)),
        ("setresgid", 65534, 65534, 65534),
        ("setresuid", 65534, 65534, 65534),
        ("setuid", 0),
    ]


def test_who_is_that_user_already_stays_it(calls: list[tuple[Any, ...]]) -> None:
    become(User("me", os.getuid(), os.getgid(), (), None), [])
    assert calls == []


def test_who_may_not_run_python_is_told(
    calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calls == []

    def refuse(_user: int) -> None:
        raise PermissionError

    for name in ("setuid", "setgid"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(UserError, match="user nobody may not run /no/such/python: "):
        become(NOBODY, [])


def test_who_may_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refuse)
    with pytest.raises(UserError) as raised:
        become(User("shop", 4123456789, 5, (5,), None), [])
    assert str(raised.value) == (
        "cannot become user shop: Operation not permitted; start the server as root, or as shop "
        "without --user"
    )


def test_a_user_gets_the_sockets_that_the_server_has_made_and_no_others() -> None:
    with socket.socket() as sock:
        made = [Listener(sock, Address(path=path), (1, 2)) for path in ("/run/s", "/run/m")]
        passed = Listener(sock, Address(path="/run/passed"))
        on_tcp = Listener(sock, Address(host="127.0.0.1", port=5000))
        assert _own_sockets(made[0], made[1]) == ["/run/s", "/run/m"]
        assert _own_sockets(passed, on_tcp) == []
        assert _own_sockets(made[0], None) == ["/run/s"]
