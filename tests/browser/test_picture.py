"""The picture of the README can be drawn again: two tabs of a browser receive what is published."""

from pathlib import Path

from tests.browser.chromium import ChromiumProfile
from tests.browser.picture import draw
from tests.support.installation import Installation

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_picture_of_two_tabs(profile: ChromiumProfile, server: Installation, tmp_path: Path) -> None:
    picture = draw(profile, server, tmp_path)
    assert picture.startswith(PNG)
    width, height = (int.from_bytes(picture[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (2080, 1052)
