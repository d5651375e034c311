import errno
import os

import pytest

from capnp_rig.rigcli import os_error_text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOENT, "No such file", "x.capnp"), "x.capnp: No such file"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files: raise ulimit -n"),
        (OSError("broken"), "broken"),
    ],
)
def test_what_the_system_refused_is_one_line(error: OSError, text: str) -> None:
    assert os_error_text(error) == text
