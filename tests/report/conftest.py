"""A browser for the pages: Chromium without a window, spoken to over a pipe in its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
    # WebGL2 without a graphics card
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
)
_SECONDS = 60.0
# DevTools reads from descriptor 3 and writes to 4
_START = (
    "import fcntl, os, sys; ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]; "
    "os.dup2(ends[0], 3); os.dup2(ends[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Page:
    """One open page.

    Attributes:
        requests: address of everything that the page asked for, itself included.
        complaints: what it wrote to the console as an error, and exceptions.
        downloads: folder that downloads go to.
    """

    def __init__(self, folder: Path, *, width: int, height: int) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.downloads = folder / "downloads"
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._buffer, self._number = b"", 0
        arguments = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={folder / 'user'}", f"--window-size={width},{height}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(to_browser), str(from_browser), *arguments, "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for name in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{name}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        behaviour = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self._call("Browser.setDownloadBehavior", behaviour)

    def open(self, path: Path) -> Page:
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until(lambda: self._loaded, "the page to load")
        return self

    def js(self, expression: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            letter = {"text": key} if len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path) -> Path:
        import base64

        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def until(self, true: Callable[[], Any], what: str) -> Any:
        """Wait for something, while events of the page are taken in."""
        end = time.monotonic() + _SECONDS
        while not (found := true()):
            assert time.monotonic() < end, f"waited {_SECONDS:.0f} s for {what}"
            self._take(0.05)
        return found

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._call(method, parameters, session=self._session)

    def _call(self, method: str, parameters: dict[str, Any], *, session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _SECONDS
        while True:
            for answer in self._take(0.2):
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return answer["result"]
            assert time.monotonic() < end, f"no answer to {method}"

    def _take(self, seconds: float) -> list[dict[str, Any]]:
        """Messages that have come; events are noted."""
        if select.select([self._read], [], [], seconds)[0]:
            self._buffer += os.read(self._read, 2**20)
        *whole, self._buffer = self._buffer.split(b"\0")
        found = [json.loads(part) for part in whole]
        for message in found:
            self._note(message.get("method", ""), message.get("params", {}))
        return found

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(facts["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.complaints.append(facts["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and facts["type"] == "error":
            self.complaints.append(str([one.get("value", one.get("description")) for one in facts["args"]]))

    def close(self) -> None:
        try:
            self._call("Browser.close", {})
            self._process.wait(timeout=20)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def browse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Page]]:
    """Open a file in Chromium; skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    pages: list[Page] = []

    def open_page(path: Path, *, width: int = 1280, height: int = 900) -> Page:
        pages.append(Page(tmp_path_factory.mktemp("browser"), width=width, height=height))
        return pages[-1].open(path)

    yield open_page
    for page in pages:
        page.close()
