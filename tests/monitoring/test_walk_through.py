"""The commands of the manual, from nothing to a mail about a server that is down."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, examples
from tests.monitoring.mailbox import mailbox
from tests.monitoring.system import SERVICES, System
from tests.proxies.programs import require, workplace
from tests.support.installation import Installation, running_server
from tests.support.waiting import wait_until

PAGE = ROOT / "docs/monitoring.md"
SECTION, NEXT = "From nothing to a board with alerts", "Scraping"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installation]:
    with running_server(tmp_path / "server") as server:
        yield server


def test_from_nothing_to_a_board_with_alerts(server: Installation) -> None:
    programs = [require(name, name) for name in SERVICES]
    text = PAGE.read_text()
    start, end = (text.count("\n", 0, text.index(f"## {title}\n")) for title in (SECTION, NEXT))
    steps = [each.text for each in examples(PAGE, "sh", "console") if start < each.line < end]
    with workplace() as folder, mailbox() as mail:
        system = System(folder, server, mail)
        install, listen, copy, query, tunnel, configure, announce, stop = steps
        for step in (install, listen, copy, tunnel, configure):
            system.run(step)
        assert (system.etc / "prometheus/prometheus.yml~").read_text() == "Debian's\n"
        with system.started(*programs):
            command, _, expected = query.removeprefix("$ ").partition("\n")
            wait_until(lambda: same_value(system.run(command)) == same_value(expected), "a scrape")
            assert system.answers("prometheus", "/consoles/aphlict.html")
            system.run(announce)
            wait_until(lambda: mail.contains("Test"), "the mail that was asked for")
            system.run(stop)
            server.stop()
            wait_until(lambda: mail.contains("AphlictDown"), "a mail about the server", timeout=30)
        assert system.noted()[-2:] == ["systemctl stop aphlict", "systemctl start aphlict"]


def same_value(text: str) -> str:
    """Return the output of a query without its time."""
    return re.sub(r" @\[[\d.]+\]", "", text).strip()
