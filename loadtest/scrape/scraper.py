"""Reads a Prometheus endpoint again and again while a load runs.

In a thread of the process that collects, never in one that makes load. An endpoint that is slow or
gone costs the run nothing: such a scrape is counted, and the next one is tried when it is due.
"""

import http.client
import threading
import time
from collections.abc import Callable
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from capnp_rig.loadtest.scrape.series import Metrics, Scraped, ScrapeError, read_metrics

EVERY_S = 1.0
_TIMEOUT_S = 5.0
_MOST_BYTES = 16 << 20
_READ_BYTES = 1 << 16
_ACCEPT = "text/plain;version=0.0.4"
_INSTALL = "--scrape needs prometheus-client: pip install 'capnp-rig[metrics]'"


def check_url(url: str) -> str:
    """Return a URL of an endpoint as a user may give it: ``host:port`` stands for its ``/metrics``.

    Raises:
        ValueError: It is none.
    """
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        is_known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_known = False
    if is_known and parts.username is not None:
        raise ValueError("bad URL: it has a user, which no scrape sends and a result would keep")
    if not is_known or url.startswith("unix:"):
        raise ValueError(
            f"bad URL {url!r}: expected http://host:port/metrics, https://…, or host:port"
        )
    return full if parts.path.strip("/") else full.rstrip("/") + "/metrics"


def fetch(url: str, read: Callable[[str], Metrics] = read_metrics) -> Metrics:
    """Read an endpoint once; `read` returns what its page says.

    Raises:
        ScrapeError: It cannot be read, or what it says is no page of metrics.
    """
    due_s = time.monotonic() + _TIMEOUT_S
    # The scheme is one of two: `check_url`.
    request = Request(url, headers={"Accept": _ACCEPT})  # noqa: S310
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            body = _read_body(answer, due_s)
    except HTTPError as error:
        error.close()
        raise ScrapeError(f"it answers {error.code} {error.reason}") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        raise ScrapeError(_reason(error)) from error
    if len(body) > _MOST_BYTES:
        raise ScrapeError(f"it says more than {_MOST_BYTES >> 20} MiB")
    return read(body.decode(errors="replace"))


def _read_body(answer: http.client.HTTPResponse, due_s: float) -> bytes:
    """Read what is said until `due_s`: the timeout of a socket is for each of its reads.

    Raises:
        TimeoutError: It takes longer.
        http.client.HTTPException: It ends early: of a number that is cut there are digits left.
    """
    parts, size = [], 0
    while size <= _MOST_BYTES and (part := answer.read1(_READ_BYTES)):
        parts.append(part)
        size += len(part)
        if time.monotonic() > due_s:
            raise TimeoutError
    if size <= _MOST_BYTES and answer.length:
        raise http.client.HTTPException("it ends in the middle of its answer")
    return b"".join(parts)


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    text = getattr(cause, "strerror", None) or " ".join(str(cause).split())
    return text or type(cause).__name__


class Scraper:
    """Reads one endpoint, between `start` and `stop`; again if it is started again.

    `read` returns what a page says, for who has a better place for that than this thread.
    """

    def __init__(
        self,
        url: str,
        *,
        every_s: float = EVERY_S,
        read: Callable[[str], Metrics] = read_metrics,
    ) -> None:
        self.url = url
        self._every_s = every_s
        self._read_page = read
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._readings: list[tuple[float, Metrics]] = []
        self._failed, self._error = 0, ""

    def check(self) -> Self:
        """Read the endpoint once, before the load begins.

        Raises:
            ScrapeError: It cannot be read, or a library is missing.
        """
        try:
            import prometheus_client.parser  # noqa: F401 - whether it is there
        except ImportError as error:
            raise ScrapeError(_INSTALL) from error
        try:
            fetch(self.url)
        except ScrapeError as error:
            raise ScrapeError(f"cannot scrape {self.url}: {error}") from error
        return self

    def start(self) -> None:
        """Begin to read, at once."""
        self._readings, self._failed, self._error = [], 0, ""
        # Of its own: a thread that hung when it was stopped does not go on.
        self._stopped = threading.Event()
        # A daemon: a scrape that hangs does not keep the process.
        self._thread = threading.Thread(target=self._run, name=f"scrape {self.url}", daemon=True)
        self._thread.start()

    def stop(self, opened_s: float) -> Scraped:
        """Stop, after a last reading; return what there is, in seconds after `opened_s`."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_TIMEOUT_S + 1)
            if self._thread.is_alive():
                self._failed, self._error = self._failed + 1, _reason(TimeoutError())
        readings = tuple(self._readings)
        return Scraped(
            self.url,
            tuple((at_s - opened_s, metrics.values) for at_s, metrics in readings),
            frozenset().union(*(metrics.counters for _, metrics in readings)),
            max((metrics.left_out for _, metrics in readings), default=0),
            self._failed,
            self._error,
        )

    def _run(self) -> None:
        stopped, due_s = self._stopped, time.monotonic()
        while True:
            is_last = stopped.is_set()
            self._read()
            if is_last:
                return
            # On a schedule, and none is made up for: two at once would tell nothing more.
            due_s = max(due_s + self._every_s, time.monotonic())
            stopped.wait(due_s - time.monotonic())

    def _read(self) -> None:
        try:
            metrics = fetch(self.url, self._read_page)
        except ScrapeError as error:
            self._failed, self._error = self._failed + 1, str(error)
        else:
            # When it was answered: what is said is as of then.
            self._readings.append((time.monotonic(), metrics))
