"""A server with several processes: a page that reconnects to another process misses no message."""

from pathlib import Path

from tests.browser.cable import cable_to
from tests.browser.chromium import ChromiumProfile
from tests.browser.page import Page, page_server
from tests.support.installation import running_server

ROUNDS = 6  # the kernel chooses the process; in six rounds another one is all but certain


def test_a_page_resumes_at_another_process(profile: ChromiumProfile, tmp_path: Path) -> None:
    with (
        running_server(tmp_path, workers=2) as server,
        cable_to(server.client_port) as cable,
        page_server(f"http://127.0.0.1:{server.client_port}/aphlict.js") as web,
    ):
        page = Page(profile.new_tab(web)).listen(cable.url, "all", minReconnectDelay=10)
        for n in range(ROUNDS):
            cable.close_connections()
            server.publish("other")
            server.publish("all", n=n)
            page.wait_for(*range(n + 1))
        assert page.gaps == 0
        assert len(cable.begun) > ROUNDS
