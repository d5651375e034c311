"""A headless Chromium, spoken to over its DevTools protocol: what a page shows, asks for and logs.

Debian's package is enough, and `.ci/run` installs it. Where there is none, tests that need it are
skipped with that reason; in CI they fail.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket
from deadline import eventually

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    # Tests may run as root, where Chromium's sandbox cannot.
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    # It asks its maker's servers for nothing.
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps"),
    "--remote-debugging-port=0",
)
_START_S = 60.0


class Page:
    """A tab. Whatever it does while nobody waits for it is noted with the next command."""

    def __init__(self, url: str) -> None:
        # A browser takes connections of pages' scripts to be an attack.
        self._socket = websocket.create_connection(url, timeout=40, suppress_origin=True)
        self._numbers = itertools.count(1)
        self._loaded = False
        self.console_errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def open(self, url: str, *, within_s: float = 40) -> None:
        """Go to a page, and wait until it is loaded."""
        self._loaded = False
        self._send("Page.navigate", url=url)
        eventually(lambda: self.evaluate("1") and self._loaded, within_s=within_s, what=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self._send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, within_s: float = 40) -> Any:
        """Return the first true value of a JavaScript expression."""
        return eventually(
            lambda: self.evaluate(expression), within_s=within_s, what=f"{expression}: {self.text}"
        )

    @property
    def text(self) -> str:
        """What a reader sees."""
        return str(self.evaluate("document.body.innerText"))

    @property
    def html(self) -> str:
        """The page as it is now."""
        return str(self.evaluate("document.documentElement.outerHTML"))

    def resize(self, width: int, height: int) -> None:
        """Take this size; a narrow page is a telephone's."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def screenshot(self, file: Path) -> None:
        """Write what is seen to a PNG file, the whole length of the page."""
        picture = self._send("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        """Let go of the tab."""
        self._socket.close()

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        deadline_s = time.monotonic() + 40
        while time.monotonic() < deadline_s:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message.get("method"), message.get("params", {}))
        raise AssertionError(f"the browser did not answer {method}")

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console_errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "assert"}:
            self.console_errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console_errors.append(str(params["entry"]))


@contextmanager
def browser_page() -> Iterator[Page]:
    """Start a browser with one empty tab; it ends with the block."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="rig-browser-") as folder:
        process = subprocess.Popen(
            [program, *_OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What it keeps beside the profile goes with the folder, too.
            env={**os.environ, "HOME": folder, "XDG_CACHE_HOME": folder},
            # Its many processes are one group.
            start_new_session=True,
        )
        try:
            page = Page(_debugger(process, Path(folder) / "profile"))
            try:
                yield page
            finally:
                page.close()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _debugger(process: "subprocess.Popen[bytes]", profile: Path) -> str:
    """Return where the first tab is debugged."""
    file = profile / "DevToolsActivePort"

    def port() -> str:
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        lines = file.read_text().splitlines() if file.exists() else []
        return lines[0] if len(lines) > 1 else ""

    base = f"http://127.0.0.1:{eventually(port, within_s=_START_S, what='a browser')}"

    def tab() -> str:
        with urllib.request.urlopen(f"{base}/json/list", timeout=20) as answer:
            tabs = [one for one in json.load(answer) if one["type"] == "page"]
        return str(tabs[0]["webSocketDebuggerUrl"]) if tabs else ""

    return eventually(tab, within_s=_START_S, what="a tab")
