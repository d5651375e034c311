"""Lets tox run its commands in the environment that it is installed in, which has ``.[all]``.

Environments of tox's own would install all of that once more for each of types, tests and demo:
half a minute every time, on a machine that has everything at hand.
"""

import sys
from pathlib import Path

from tox.config.sets import ConfigSet
from tox.plugin import impl
from tox.session.state import State


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:  # noqa: ARG001 - tox's names
    """Give tox.ini ``{bin}``, the folder of the commands beside tox."""
    core_conf.add_constant("bin", "the commands beside tox", Path(sys.executable).parent)
