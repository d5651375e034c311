"""Runs Locust with several lists of arguments, each in a fork: importing it takes a second of CPU.

As a script: a folder, then the lists as JSON. `locust_in_forks` starts it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from running_locust import LOCUSTFILE, Finished


def locust_in_forks(runs: Sequence[Sequence[str]], folder: Path) -> list[Finished]:
    """Return how Locust ends with each list of arguments; its output is kept in `folder`."""
    options = ("-f", str(LOCUSTFILE), "--allow-void")
    asked = json.dumps([[*options, *args] for args in runs])
    command = [sys.executable, "-P", __file__, str(folder), asked]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=120, check=True
    )
    statuses = json.loads(done.stdout)
    outputs = [(folder / str(number)).read_text() for number in range(len(runs))]
    return [Finished(*run) for run in zip(statuses, outputs, strict=True)]


def _in_fork(main: Callable[[], None], args: Sequence[str], output: Path) -> int:
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        # As the file that `python -m locust` starts: Locust names itself after it.
        sys.argv = ["__main__.py", *args]
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(file, stream)
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    # Once, for all forks; a test that imports this module has no Locust in it.
    from locust.main import main

    results, lists = Path(sys.argv[1]), json.loads(sys.argv[2])
    ended = [_in_fork(main, args, results / str(number)) for number, args in enumerate(lists)]
    sys.stdout.write(json.dumps(ended))
