"""Headless Chromium, driven over the WebDriver protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.builders.daemon import DEADLINE, wait_until

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        self._post("url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What ``script``, the body of a function, returns."""
        return self._post("execute/sync", {"script": script, "args": arguments})

    def run_async(self, script: str, *arguments: Any) -> Any:
        """What ``script`` gives to its last argument, which is a function."""
        return self._post("execute/async", {"script": script, "args": arguments})

    def text(self, css: str) -> str:
        """The text that is seen of the first element; '' where there is none."""
        found = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)
        return str(found)

    def wait_for(self, what: str, holds: Callable[[], Any]) -> Any:
        return wait_until(holds, what)

    def click(self, css: str) -> None:
        self._post(f"element/{self._find(css)}/click", {})

    def type(self, css: str, text: str) -> None:
        self._post(f"element/{self._find(css)}/value", {"text": text})

    def resize(self, width: int, height: int, scheme: str = "light", scale: float = 1.0) -> None:
        """Look as a device of so many CSS pixels does."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._devtools("Emulation.setEmulatedMedia", {"features": [feature]})

    def screenshot(self, file: Path) -> None:
        """The whole page, as long as it is."""
        taken = self._devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(taken["data"]))

    def log(self) -> list[str]:
        """What the page complained of since the last call."""
        return [entry["message"] for entry in self._post("se/log", {"type": "browser"})]

    def _find(self, css: str) -> str:
        found = self._post("element", {"using": "css selector", "value": css})
        return str(found[_ELEMENT])

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, path: str, document: Any) -> Any:
        return _ask("POST", f"{self._session}/{path}", document)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh ``profile``."""
    assert CHROMIUM and DRIVER
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        lines = iter(driver.stdout.readline, "")
        port = next(
            found[1] for line in lines if (found := re.search(r"successfully on port (\d+)", line))
        )
        address = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROMIUM, "args": [*_FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        opened = _ask("POST", address, {"capabilities": {"alwaysMatch": wanted}})
        session = f"{address}/{opened['sessionId']}"
        try:
            yield Browser(session)
        finally:
            _ask("DELETE", session)
    finally:
        driver.terminate()
        driver.wait(DEADLINE)


def _ask(method: str, url: str, document: Any = None) -> Any:
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from error
