"""A headless Firefox, driven over WebDriver BiDi."""

import subprocess
from pathlib import Path
from typing import Any

from tests.browser.driving import Browser, PageError, Profile, Remote, Tab, find_address
from tests.support.waiting import wait_until

# Local network access (lna) would block requests that the server has to reject.
PREFERENCES = """
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.lna.blocking", false);
user_pref("network.lna.enabled", false);
user_pref("network.lna.websocket.enabled", false);
user_pref("network.proxy.type", 0);
user_pref("toolkit.telemetry.enabled", false);
"""


class FirefoxTab(Tab):
    """A tab of Firefox."""

    def __init__(self, remote: Remote, context: str) -> None:
        self._remote = remote
        self._context = context

    def open(self, url: str) -> None:
        """Load a page and wait until its scripts have run."""
        params = {"context": self._context, "url": url, "wait": "complete"}
        self._remote.command("browsingContext.navigate", params)

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page, in CSS pixels."""
        viewport = {"width": width, "height": height}
        self._remote.command("browsingContext.setViewport", {"context": self._context, "viewport": viewport})

    def show(self) -> None:
        """Bring the tab to the front: the page that was there is hidden."""
        self._remote.command("browsingContext.activate", {"context": self._context})

    def before_pages(self, function: str) -> None:
        """Call a function in each page that this tab loads from now on, before the scripts of the page."""
        params = {"functionDeclaration": function, "contexts": [self._context]}
        self._remote.command("script.addPreloadScript", params)

    def _evaluate(self, expression: str) -> Any:
        params = {"expression": expression, "awaitPromise": True, "target": {"context": self._context}}
        answer = self._remote.command("script.evaluate", params)
        if answer["type"] != "success":
            raise PageError(answer["exceptionDetails"]["text"])
        return answer["result"]["value"]

    def close(self) -> None:
        """Close the tab as a user does."""
        self._remote.command("browsingContext.close", {"context": self._context})


class FirefoxProfile(Profile):
    """A user context ("container") of Firefox."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._id: str = remote.command("browser.createUserContext", {})["userContext"]

    def new_tab(self, url: str) -> FirefoxTab:
        """Open a page in a new tab."""
        params = {"type": "tab", "userContext": self._id, "background": True}
        tab = FirefoxTab(self._remote, self._remote.command("browsingContext.create", params)["context"])
        tab.open(url)
        return tab

    def close(self) -> None:
        """Close its tabs and delete it."""
        self._remote.command("browser.removeUserContext", {"userContext": self._id})


class Firefox(Browser):
    """A Firefox with its files in a folder."""

    def __init__(self, program: str, folder: Path) -> None:
        (folder / "user.js").write_text(PREFERENCES)
        log = folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [program, "--headless", "--no-remote", "--profile", folder, "--remote-debugging-port", "0"],
                stdout=output,
                stderr=output,
                env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "MOZ_DISABLE_CONTENT_SANDBOX": "1"},
            )
        pattern = r"BiDi listening on (ws://\S+)"
        address = wait_until(lambda: find_address(log.read_text(errors="replace"), pattern), "Firefox", 60)
        self._remote = Remote(f"{address}/session")
        self._remote.command("session.new", {"capabilities": {}})

    def new_profile(self) -> FirefoxProfile:
        """A fresh profile."""
        return FirefoxProfile(self._remote)

    def close(self) -> None:
        """Terminate all its processes."""
        self._remote.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
