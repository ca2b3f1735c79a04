"""The pictures of the manual can be drawn again: two tabs that receive what is published, and the console."""

from pathlib import Path

from tests.browser import console_picture
from tests.browser.chromium import ChromiumProfile
from tests.browser.picture import draw
from tests.docs.pages import ROOT
from tests.support.installation import Installation

MAX_BYTES = 150_000
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_picture_of_two_tabs(profile: ChromiumProfile, server: Installation, tmp_path: Path) -> None:
    picture = draw(profile, server, tmp_path)
    assert picture.startswith(PNG)
    width, height = (int.from_bytes(picture[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (2080, 1052)


def test_the_pictures_of_the_console(profile: ChromiumProfile, tmp_path: Path) -> None:
    with console_picture.scene(tmp_path) as nodes:
        pictures = console_picture.draw(profile, nodes, 0.1)
    for name, picture in pictures.items():
        assert picture.startswith(PNG)
        assert len(picture) < MAX_BYTES
        assert (ROOT / "docs" / "images" / name).stat().st_size < MAX_BYTES
