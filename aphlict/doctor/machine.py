"""This machine: file descriptors and the clock."""

import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from aphlict.doctor.findings import CheckList, Trouble

FEW = 4096  # descriptors: fewer do not carry a middle-sized installation
RESERVE = 0.9  # of the limit: past this, new browsers will soon find no room
SKEW = 30.0  # seconds between two clocks that deserve a remark
TLS_SKEW = 3600.0  # seconds at which certificates begin to look expired, or not valid yet


def check_descriptors(workers: Sequence[psutil.Process], checks: CheckList) -> None:
    """Whether the processes that serve may open enough files. Raises Trouble."""
    try:
        limit, used = max(
            map(_descriptors, workers or [psutil.Process()]), key=lambda pair: pair[1] / pair[0]
        )
    except psutil.Error as error:
        checks.skip(
            "file descriptors",
            f"cannot be read ({type(error).__name__}): run it as the server's user or root",
        )
        return
    with checks.check("file descriptors") as note:
        if used >= RESERVE * limit:
            raise Trouble(
                f"the server has {used:,} of {limit:,} file descriptors open: soon it cannot take new browsers",
                "raise LimitNOFILE in the service's unit (or ulimit -n before the start), and restart",
            )
        note.says = f"{used:,} of {limit:,} are open" if workers else f"a server may open {limit:,}"
    if limit < FEW:
        checks.doubt(
            "file descriptors",
            f"{limit:,} are few: each browser needs one",
            "raise LimitNOFILE in the service's unit (or ulimit -n before the start), and restart",
        )


def _descriptors(process: psutil.Process) -> tuple[int, int]:
    """The limit of a process, and how many it has open."""
    limit, _ = process.rlimit(psutil.RLIMIT_NOFILE)
    return (limit if limit >= 0 else 1 << 30), process.num_fds()


def check_clock(others: dict[str, float], checks: CheckList) -> None:
    """Compare this machine's clock with others' (name: how far it is behind theirs, in seconds). Raises Trouble."""
    with checks.check("clock") as note:
        built = Path(__file__).stat().st_mtime
        if time.time() < built - TLS_SKEW:
            raise Trouble(
                f"this machine's clock says {time.strftime('%Y-%m-%d')}: this program is younger than that",
                "set the clock (timedatectl set-ntp true): certificates look as if they were not valid yet",
            )
        for name, behind in others.items():
            if abs(behind) > TLS_SKEW:
                raise Trouble(
                    f"this machine's clock is {_amount(behind)} that of {name}",
                    "set the clock of the one that is wrong (timedatectl set-ntp true)",
                )
        note.says = (
            f"agrees with {', '.join(others)}" if others else "is plausible; nothing to compare it with"
        )
    for name, behind in others.items():
        if SKEW < abs(behind) <= TLS_SKEW:
            checks.doubt(
                "clock",
                f"this machine's clock is {_amount(behind)} that of {name}",
                "have both set by NTP, or the times in their logs do not fit together",
            )


def _amount(behind: float) -> str:
    return f"{abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'}"
