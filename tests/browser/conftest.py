"""Fixtures of the tests in browsers, which share the browsers and most servers; each test has a fresh profile."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.browser.backend import Backend, running_backend
from tests.browser.cable import Cable, cable_to
from tests.browser.chromium import Chromium, ChromiumProfile
from tests.browser.driving import Profile
from tests.browser.firefox import Firefox
from tests.browser.page import Page, page_server
from tests.browser.server import Servers
from tests.proxies.programs import require
from tests.support.installation import Installation
from tests.support.tokens import key_file


@pytest.fixture(scope="session")
def chromium_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A running Chromium."""
    browser = Chromium(require("chromium", "chromium"), tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def firefox_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """A running Firefox."""
    browser = Firefox(require("firefox-esr", "firefox-esr"), tmp_path_factory.mktemp("firefox"))
    yield browser
    browser.close()


@pytest.fixture
def profile(chromium_browser: Chromium) -> Iterator[ChromiumProfile]:
    """A fresh profile of Chromium."""
    profile = chromium_browser.new_profile()
    yield profile
    profile.close()


@pytest.fixture(params=["chromium", "firefox"])
def any_profile(request: pytest.FixtureRequest) -> Iterator[Profile]:
    """A fresh profile of each browser."""
    browser = request.getfixturevalue(f"{request.param}_browser")
    profile = browser.new_profile()
    yield profile
    profile.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of all tests."""
    servers = Servers(lambda: tmp_path_factory.mktemp("server"))
    yield servers
    servers.close()


@pytest.fixture
def server(servers: Servers) -> Iterator[Installation]:
    """A running server."""
    with servers.lend() as server:
        yield server


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The key with which backends sign tokens."""
    return key_file(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def strict_server(servers: Servers, key: str) -> Iterator[Installation]:
    """A server that requires tokens, and allows only short names."""
    with servers.lend({"auth.keys": [key]}, name=20) as server:
        yield server


@pytest.fixture
def cable(server: Installation) -> Iterator[Cable]:
    """A network to the server that can be cut."""
    with cable_to(server.client_port) as cable:
        yield cable


TRANSPORTS = ("websocket", "events", "polling")


def allow_only(transport: str, cable: Cable) -> Cable:
    """Let one transport through, and the next ones only if a client tries them first."""
    cable.refuses_upgrades = transport != "websocket"
    cable.refuses_streams = transport == "polling"
    return cable


@pytest.fixture(params=TRANSPORTS)
def network(request: pytest.FixtureRequest, cable: Cable) -> Cable:
    """A network to the server for each transport."""
    return allow_only(request.param, cable)


@pytest.fixture
def networks(server: Installation) -> Iterator[list[Cable]]:
    """The networks for all transports together, for tests that take long."""
    with ExitStack() as cables:
        yield [allow_only(each, cables.enter_context(cable_to(server.client_port))) for each in TRANSPORTS]


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend that makes tokens."""
    with running_backend() as backend:
        yield backend


@pytest.fixture
def web(server: Installation) -> Iterator[str]:
    """The address of a page that takes the client from the server."""
    with page_server(f"http://127.0.0.1:{server.client_port}/ws/aphlict.js") as address:
        yield address


@pytest.fixture
def new_page(profile: ChromiumProfile, web: str) -> Callable[[], Page]:
    """Opens the page in a tab of Chromium."""
    return lambda: Page(profile.new_tab(web))


@pytest.fixture
def new_page_anywhere(any_profile: Profile, web: str) -> Callable[[], Page]:
    """Opens the page in a tab of each browser."""
    return lambda: Page(any_profile.new_tab(web))
