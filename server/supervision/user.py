"""The user that the server becomes when it has bound its address (--user), for good.

Whatever is opened later is opened as that user, by workers that start after this: service, files,
certificates.
"""

import contextlib
import grp
import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass

# The kernel takes the number above, -1, for "leave it as it is".
_MAX_ID = (1 << 32) - 2


class UserError(Exception):
    """The server cannot become that user; the message says why."""


@dataclass(frozen=True, slots=True)
class User:
    """Who to become: `groups` are the supplementary ones, `home` is None for a bare number."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str | None


def find_user(text: str) -> User:
    """Return the user that NAME[:GROUP] names; each may be a number.

    Without a group it is the user's own; the supplementary groups are the user's in any case.

    Raises:
        UserError: There is no such user or group.
    """
    name, _, group = text.partition(":")
    entry = _entry(name)
    if entry is None:
        if not _is_id(name):
            raise UserError(f"there is no user {name!r}")
        if not group:
            raise UserError(f"user {name} has no entry and so no group: name one, {name}:GROUP")
        gid = _gid(group)
        return User(name, int(name), gid, (gid,), None)
    gid = _gid(group) if group else entry.pw_gid
    groups = os.getgrouplist(entry.pw_name, gid)
    return User(entry.pw_name, entry.pw_uid, gid, tuple(groups), entry.pw_dir)


def become(user: User, socket_paths: Sequence[str]) -> None:
    """Give `user` the Unix sockets, and become that user for good.

    Raises:
        UserError: This process may not, or could return.
    """
    if (os.getuid(), os.geteuid(), os.getgid()) == (user.uid, user.uid, user.gid):
        return
    try:
        for path in socket_paths:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise UserError(
            f"cannot become user {user.name}: {error.strerror}; start the server as root, or as "
            f"{user.name} without --user"
        ) from error
    if user.uid != 0 and _can_return():
        raise UserError(f"user {user.name} could become root again: drop its capabilities")
    if not os.access(sys.executable, os.X_OK):
        raise UserError(
            f"user {user.name} may not run {sys.executable}: install Python and the server where "
            "that user may read"
        )
    if user.home is not None:
        os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name)


def _can_return() -> bool:
    for take in (os.setuid, os.setgid):
        with contextlib.suppress(PermissionError):
            take(0)
            return True
    return False


def _entry(name: str) -> pwd.struct_passwd | None:
    # The ValueError is that of a name which no C string can hold.
    with contextlib.suppress(KeyError, ValueError):
        return pwd.getpwuid(int(name)) if _is_id(name) else pwd.getpwnam(name)
    return None


def _gid(group: str) -> int:
    if _is_id(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as error:
        raise UserError(f"there is no group {group!r}") from error


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _MAX_ID
