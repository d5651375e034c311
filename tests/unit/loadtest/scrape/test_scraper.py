import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from deadline import eventually

from capnp_rig.loadtest.scrape import scraper
from capnp_rig.loadtest.scrape.scraper import Scraper, check_url, fetch
from capnp_rig.loadtest.scrape.series import ScrapeError


@contextmanager
def endpoint(*bodies: bytes) -> Iterator[str]:
    """Serve each body once, the last one again and again; an empty one is a 503."""
    left = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(200 if body else 503)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer as `handler` does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("127.0.0.1:9100", "http://127.0.0.1:9100/metrics"),
        ("http://[::1]:9100", "http://[::1]:9100/metrics"),
        ("http://a:1/", "http://a:1/metrics"),
        ("https://a/some/metrics?x=1", "https://a/some/metrics?x=1"),
    ],
)
def test_an_address_stands_for_its_metrics(url: str, full: str) -> None:
    assert check_url(url) == full


@pytest.mark.parametrize("url", ["", "unix:/a", "ftp://a/", "http://", "a:b", "http://a:99999/m"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^bad URL "):
        check_url(url)


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^bad URL: it has a user") as refusal:
        check_url("http://ann:secret@a:1/metrics")
    assert "secret" not in str(refusal.value)


def test_readings_count_from_the_opening_and_failures_are_told() -> None:
    with endpoint(b"# TYPE a_total counter\na_total 1\n", b"", b"a_total 2\nb 3\n") as url:
        reader = Scraper(url, every_s=0.01)
        opened_s = time.monotonic()
        reader.start()
        eventually(lambda: len(reader._readings) > 2)
        scraped = reader.stop(opened_s)
    assert scraped.readings[0][1] == {"a_total": 1.0}
    assert scraped.readings[-1][1] == {"a_total": 2.0, "b": 3.0}
    times = [at_s for at_s, _ in scraped.readings]
    assert times == sorted(times)
    assert times[0] > 0
    assert scraped.counters == {"a_total"}
    assert (scraped.failed, scraped.error) == (1, "it answers 503 Service Unavailable")


def test_a_scraper_can_be_started_again() -> None:
    with endpoint(b"a 1\n") as url:
        reader = Scraper(url).check()
        for _ in range(2):
            reader.start()
            # The first reading, and one more at the end.
            assert 1 <= len(reader.stop(0.0).readings) <= 2


def test_an_endpoint_that_cannot_be_read_is_told_before_the_load() -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/metrics"
        with pytest.raises(ScrapeError, match=f"^cannot scrape {url}: Connection refused$"):
            Scraper(url).check()
    with endpoint(b"<html>") as url, pytest.raises(ScrapeError, match="no page of Prometheus"):
        Scraper(url).check()


def test_an_endpoint_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraper, "_TIMEOUT_S", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        with pytest.raises(ScrapeError, match=r"^no answer within 0.05 s$"):
            fetch(url)


def test_an_endpoint_that_dribbles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraper, "_TIMEOUT_S", 0.1)
    has_given_up = Event()

    class Dribble(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                # Faster than the timeout of one read.
                while not has_given_up.wait(0.01):
                    self.wfile.write(b"#")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Dribble) as url:
        with pytest.raises(ScrapeError, match=r"^no answer within 0.1 s$"):
            fetch(url)
        has_given_up.set()


def test_a_page_that_is_cut_is_not_read() -> None:
    class Cut(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"a_total 12")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Cut) as url, pytest.raises(ScrapeError, match="ends in the middle"):
        fetch(url)


def test_a_page_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraper, "_MOST_BYTES", 10)
    with endpoint(b"a 1\n" * 10) as url, pytest.raises(ScrapeError, match="it says more than"):
        fetch(url)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    with pytest.raises(ScrapeError, match=r"pip install 'capnp-rig\[metrics\]'"):
        Scraper("http://127.0.0.1:1/metrics").check()
