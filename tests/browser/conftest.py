"""A real Chromium, spoken to over its DevTools pipe; no driver and no further package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Page:
    """One tab: what it said, what it asked for, and what it answers."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params):
        return self.browser.ask(method, params, self.session)

    def heard(self, method: str, params: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(str(params["entry"]))
        elif method == "Page.loadEventFired":
            self.loaded = True

    def look(self, width: int, scheme: str) -> None:
        """Make the window this wide, and light or dark."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, path: Path) -> None:
        self.loaded = False
        self.ask("Page.navigate", url=path.as_uri())
        self.browser.until(lambda: self.loaded)

    def run(self, script: str):
        """The value of an expression; a promise is waited for."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        text = {"Enter": "\r", "Tab": "\t"}[key]
        code = {"Enter": 13, "Tab": 9}[key]
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text, windowsVirtualKeyCode=code)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def shot(self, path: Path) -> None:
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


class Browser:
    """The process, and JSON with a NUL behind it in both directions."""

    def __init__(self, program: str, profile: str) -> None:
        self.number, self.rest = 0, b""
        self.pages: dict[str, Page] = {}
        theirs_in, self.out = os.pipe()
        self.inn, theirs_out = os.pipe()
        # The pipe's ends are 3 and 4 by Chromium's convention.
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def ask(self, method: str, params: dict, session: str | None = None) -> dict:
        self.number += 1
        mine = self.number
        message = {"id": mine, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.out, json.dumps(message).encode() + b"\0")
        found: list[dict] = []

        def answered() -> bool:
            found.extend(m for m in self.answers if m["id"] == mine)
            return bool(found)

        self.until(answered)
        assert "error" not in found[0], (method, found[0])
        return found[0]["result"]

    def until(self, happened, seconds: float = 600.0) -> None:
        """Read what comes until something has happened."""
        end = time.monotonic() + seconds
        self.answers: list[dict] = []
        while not happened():
            left = end - time.monotonic()
            assert left > 0, "the browser did not answer"
            if not select.select([self.inn], [], [], left)[0]:
                continue
            data = os.read(self.inn, 1 << 20)
            assert data, "the browser has ended"
            *whole, self.rest = (self.rest + data).split(b"\0")
            self.answers = []
            for message in map(json.loads, whole):
                if "id" in message:
                    self.answers.append(message)
                elif message.get("sessionId") in self.pages:
                    self.pages[message["sessionId"]].heard(message["method"], message["params"])

    def page(self) -> Page:
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page.__new__(Page)
        self.pages[session] = page
        page.__init__(self, session)
        return page

    def close(self) -> None:
        os.close(self.out)
        self.process.terminate()
        self.process.wait(600)
        os.close(self.inn)


@pytest.fixture(scope="session")
def browser():
    """Chromium; where there is none the tests fail, since that is what they are asked for."""
    program = os.environ.get("DDPMKIT_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    assert program, f"no browser: install one of {', '.join(NAMES)}, or make test-browser"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = Browser(program, profile)
        yield running
        running.close()


@pytest.fixture
def page(browser):
    return browser.page()
