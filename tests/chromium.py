"""Headless Chromium by its debugging pipe: pages, keys, the console and pictures; no driver."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60.0  # seconds for one answer


def executable() -> str:
    """The browser; ISTHMUS_CHROMIUM names another."""
    found = os.environ.get("ISTHMUS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "these tests need Chromium: apt-get install chromium, or set ISTHMUS_CHROMIUM"
    return found


class Browser:
    """One browser with one tab."""

    def __init__(self, folder: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def take_pipes() -> None:
            # The browser reads from 3 and writes to 4; first out of their way.
            reads, writes = os.dup(to_read), os.dup(to_write)
            keep = [os.dup(fd) for fd in (reads, writes)]
            while min(keep) < 5:
                keep = [os.dup(fd) for fd in keep]
            os.dup2(keep[0], 3)
            os.dup2(keep[1], 4)

        self._process = subprocess.Popen(
            [
                executable(),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-pipe",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=take_pipes,
        )
        os.close(to_read)
        os.close(to_write)
        self._held, self._count, self._session = b"", 0, ""
        self.faults: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._read], [], [], deadline - time.monotonic())
            assert ready, "the browser does not answer"
            got = os.read(self._read, 1 << 20)
            assert got, "the browser has ended"
            self._held += got
        text, self._held = self._held.split(b"\0", 1)
        message = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method is not None:
            self._events.append(method)
        if (
            method == "Runtime.exceptionThrown"
            or (method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"})
            or (method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"})
        ):
            self.faults.append(json.dumps(params))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(
        self, page: Path | str, *, width: int = 1600, height: int = 1000, dark: bool = False
    ) -> None:
        """Load a file or an address in a window of a size, with the theme of the system."""
        self.size(width, height)
        self.media(dark=dark)
        self.faults, self.requests = [], []
        self._events = []
        self.call("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        deadline = time.monotonic() + PATIENCE
        while "Page.loadEventFired" not in self._events:
            self._receive(deadline)

    def size(self, width: int, height: int) -> None:
        """Set the window's inner size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def media(self, *, dark: bool = False, kind: str = "screen") -> None:
        """Set the theme of the system, and screen or print."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", media=kind, features=[scheme, still])

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        got = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def press(self, key: str, code: int, *, text: str = "") -> None:
        """Press and release one key."""
        for kind in ("keyDown", "keyUp"):
            told: dict[str, Any] = {"type": kind, "key": key, "code": key}
            if text and kind == "keyDown":
                told["text"] = text
            self.call("Input.dispatchKeyEvent", windowsVirtualKeyCode=code, **told)

    def point(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def tree(self) -> list[dict[str, Any]]:
        """The accessibility tree, as a screen reader gets it."""
        return self.call("Accessibility.getFullAXTree")["nodes"]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page."""
        got = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))
