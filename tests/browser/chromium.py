"""A headless Chromium, driven over its DevTools protocol."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.browser.driving import Browser, PageError, Profile, Remote, Tab
from tests.support.waiting import wait_until

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-proxy-server",
    "--host-resolver-rules=MAP rebound.example 127.0.0.1",  # a name of another site that resolves to this machine
    "--remote-debugging-port=0",
)

NARROW = 500  # CSS pixels


class ChromiumTab(Tab):
    """A tab of Chromium."""

    def __init__(self, remote: Remote, target: str) -> None:
        self._remote = remote
        self._target = target
        attached = remote.command("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session: str = attached["sessionId"]
        self.command("Runtime.enable")

    def command(self, method: str, **params: object) -> dict[str, Any]:
        """Run a DevTools command in this tab."""
        return self._remote.command(method, params, sessionId=self._session)

    def open(self, url: str) -> None:
        """Load a page and wait until its scripts have run."""
        self.command("Page.navigate", url=url)
        shown = re.sub("//[^/]*@", "//", url)  # a browser hides user name and password
        wait_until(lambda: self.evaluate("[document.readyState, location.href]") == ["complete", shown], url)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page, in CSS pixels; narrow ones are those of a telephone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < NARROW}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)

    def show(self) -> None:
        """Bring the tab to the front: the page that was there is hidden."""
        self.command("Page.bringToFront")

    def before_pages(self, function: str) -> None:
        """Call a function in each page that this tab loads from now on, before the scripts of the page."""
        self.command("Page.enable")
        self.command("Page.addScriptToEvaluateOnNewDocument", source=f"({function})()")

    def prefer(self, scheme: str) -> None:
        """Set the colours that the user prefers: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def _evaluate(self, expression: str) -> Any:
        answer = self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise PageError(str(answer["exceptionDetails"]["exception"].get("description")))
        return answer["result"]["value"]

    def console(self, kind: str) -> list[str]:
        """Return the lines of the page's console: those of a kind such as 'warning' or 'error'."""
        self.evaluate("0")  # events before its response have arrived then
        calls = [
            event["params"]
            for event in self._remote.events("Runtime.consoleAPICalled")
            if event["sessionId"] == self._session
        ]
        return [call["args"][0]["value"] for call in calls if call["type"] == kind]

    def close(self) -> None:
        """Close the tab as a user does."""
        self._remote.command("Target.closeTarget", {"targetId": self._target})

    def crash(self) -> None:
        """Kill the process of the tab."""
        self._remote.post("Page.crash", {}, sessionId=self._session)

    def freeze(self, *, warned: bool) -> None:
        """Stop all scripts of the tab; with `warned`, after the event `freeze`."""
        if warned:
            self.command("Page.setWebLifecycleState", state="frozen")
        else:
            self.command("Debugger.enable")
            self.command("Debugger.pause")
            self._remote.post("Runtime.evaluate", {"expression": "0"}, sessionId=self._session)

    def thaw(self, *, warned: bool) -> None:
        """Let the scripts run again."""
        if warned:
            self.command("Page.setWebLifecycleState", state="active")
        else:
            self.command("Debugger.disable")


class ChromiumProfile(Profile):
    """A browser context, like an incognito window."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._id: str = remote.command("Target.createBrowserContext", {})["browserContextId"]

    def new_tab(self, url: str) -> ChromiumTab:
        """Open a page in a new tab."""
        params = {"url": "about:blank", "browserContextId": self._id}
        tab = ChromiumTab(self._remote, self._remote.command("Target.createTarget", params)["targetId"])
        tab.open(url)
        return tab

    def close(self) -> None:
        """Close its tabs and delete it."""
        self._remote.command("Target.disposeBrowserContext", {"browserContextId": self._id})


class Chromium(Browser):
    """A Chromium with its files in a folder."""

    def __init__(self, program: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"},
        )
        address = folder / "DevToolsActivePort"
        wait_until(lambda: address.exists() and len(address.read_text().split()) == 2, "Chromium", 30)
        port, path = address.read_text().split()
        self._remote = Remote(f"ws://127.0.0.1:{port}{path}")

    def new_profile(self) -> ChromiumProfile:
        """A fresh profile."""
        return ChromiumProfile(self._remote)

    def close(self) -> None:
        """Terminate all its processes."""
        self._remote.command("Browser.close", {})
        self._remote.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
