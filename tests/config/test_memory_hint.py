"""`memory.hint` lowers limits, and raises none."""

from pathlib import Path

import pytest

from aphlict.config.loader import load
from tests.support.configuration import write_configuration

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("hint", "workers", "history", "waiting", "subscriptions"),
    [
        (None, 1, 64, 256, 512),
        (10_000, 1, 64, 256, 512),
        (512, 1, 64, 256, 64),
        (128, 1, 32, 64, 16),
        (128, 4, 8, 16, 4),
        (1, 1, 1 / 4, 1 / 2, 1 / 8),
    ],
)
def test_what_may_grow_fits(
    hint: int | None, workers: int, history: float, waiting: float, subscriptions: float, tmp_path: Path
) -> None:
    settings = load(write_configuration(tmp_path, memory_hint=hint, workers=workers))
    assert (settings.limits.history, settings.limits.send_buffer_total) == (history * MIB, waiting * MIB)
    assert settings.limits.subscriptions_total == subscriptions * MIB


def test_lower_limits_stay(tmp_path: Path) -> None:
    settings = load(write_configuration(tmp_path, memory_hint=128, history=1000, send_buffer_total=2000))
    assert (settings.limits.history, settings.limits.send_buffer_total) == (1000, 2000)
