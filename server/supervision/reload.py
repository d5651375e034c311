"""Changes of a running server: new code and configuration, more workers or fewer, fresh ones.

One change is under way at a time, and the next begins when it is over. Each starts workers beside
those that serve. If one of them cannot start, nothing changes, and the log says why.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from capnp_rig.rigcli.tls import TlsFileError
from capnp_rig.server.config import FIXED, ConfigError, ServerConfig
from capnp_rig.server.connections.tls import check_files
from capnp_rig.server.logs.log import Log
from capnp_rig.server.supervision.notify import ServiceManager
from capnp_rig.server.supervision.plan import Plan
from capnp_rig.server.supervision.succession import FailedStart
from capnp_rig.server.supervision.workers import Workers

MAX_WORKERS = 1024
# After a replacement that did not start, before the next.
_REST_S = 10.0


def merged(running: ServerConfig, wanted: ServerConfig) -> tuple[ServerConfig, list[str]]:
    """Return the configuration to go on with, and the fields that only a restart can change."""
    fixed = {name: getattr(running, name) for name in FIXED}
    changed = [name for name, value in fixed.items() if getattr(wanted, name) != value]
    if (running.tls.tls_cert is None) != (wanted.tls.tls_cert is None):
        # Other certificates, but not none: on the address that TLS had allowed.
        fixed["tls"] = running.tls
        changed.append("tls_cert")
    return replace(wanted, **fixed), changed


class Changes:
    """Carries the changes out."""

    def __init__(
        self,
        config: ServerConfig,
        workers: Workers,
        log: Log,
        manager: ServiceManager,
        *,
        plan: Callable[[ServerConfig], Plan],
        reread: Callable[[], ServerConfig],
        apply: Callable[[Plan], None],
    ) -> None:
        """`plan` plans a configuration and `apply` tells the rest of the supervisor of a new one.

        `reread` returns the configuration as it is wanted now. Both may raise `ConfigError`.
        """
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._workers = workers
        self._log = log
        self._manager = manager
        self._plan = plan
        self._reread = reread
        self._apply = apply
        self._count = config.workers
        self._is_reload_wanted = False
        self._is_under_way = False
        self._rests_until_s = 0.0

    def reload(self) -> None:
        """Read the configuration again, and replace every worker."""
        self._is_reload_wanted = True
        self._next()

    def resize(self, more: int) -> None:
        """Change the number of workers; there is always one."""
        self._count = min(max(self._count + more, 1), MAX_WORKERS)
        self._next()

    @property
    def may_recycle(self) -> bool:
        """Whether a worker may be replaced now: nothing else is under way, or failed just now."""
        return not self._is_under_way and self._loop.time() >= self._rests_until_s

    def recycle(self, place: int, reason: str) -> None:
        """Replace one worker; only when that may be done."""
        worker = self._workers[place]
        assert worker is not None
        self._log.info(f"{worker.name} is replaced: {reason}", worker=place, reason=reason)
        self._start(
            self._config,
            [place],
            done=f"{worker.name} was replaced",
            failed=f"{worker.name} serves on, it cannot be replaced",
        )

    def _next(self) -> None:
        if self._is_under_way or not self._workers.replaces:
            return
        if self._is_reload_wanted:
            self._is_reload_wanted = False
            self._reload()
        elif self._count != len(self._workers):
            self._resize()

    def _reload(self) -> None:
        self._manager.reloading()
        failed = "Not reloaded, the workers serve on as they are"
        try:
            config, fixed = merged(self._config, self._reread())
            check_files(config)
        except (ConfigError, TlsFileError) as error:
            self._fail(failed, FailedStart(str(error)))
            return
        for name in fixed:
            option = name.replace("_", "-")
            self._log.warning(
                f"A reload does not change {option}: restart the server for that", option=option
            )
        if config.workers != self._config.workers:
            self._count = config.workers
        self._log.info(f"Reloading: {self._count} new workers start", workers=self._count)
        done = f"Reloaded: {self._count} new workers serve, the old ones finish their calls"
        self._start(config, range(self._count), done=done, failed=failed)

    def _resize(self) -> None:
        before = len(self._workers)
        self._start(
            self._config,
            range(before, self._count),
            done=f"{self._count} workers serve, after {before}",
            failed=f"{before} workers serve on, no more can start",
        )

    def _start(
        self, config: ServerConfig, places: Sequence[int], *, done: str, failed: str
    ) -> None:
        try:
            plan = self._plan(replace(config, workers=self._count))
        except ConfigError as error:
            self._end(failed, FailedStart(str(error)))
            return

        def end(failure: FailedStart | None) -> None:
            self._is_under_way = False
            if failure is not None:
                self._end(failed, failure)
            else:
                self._config = config
                self._apply(plan)
                self._log.info(done)
                self._manager.ready(done)
            self._loop.call_soon(self._next)

        self._is_under_way = True
        self._workers.succeed(plan.setups, places, end)

    def _end(self, what: str, failure: FailedStart) -> None:
        self._count = len(self._workers)
        self._rests_until_s = self._loop.time() + _REST_S
        self._fail(what, failure)

    def _fail(self, what: str, failure: FailedStart) -> None:
        more = {} if failure.trace is None else {"traceback": failure.trace}
        self._log.error(f"{what}: {failure.cause}", cause=failure.cause, **more)
        self._manager.ready(f"{what}: {failure.cause}")
