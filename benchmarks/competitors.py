"""Other servers, if their packages are installed, measured in the same run."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import workloads
from benchmarks.servers import Target, free_port, pid_environment, running
from benchmarks.table import Values, add

OTHERS = Path(__file__).parent / "others"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")  # Debian: libnginx-mod-nchan
WORKLOADS = (workloads.fan_out(2000), workloads.steady, workloads.many_channels, workloads.connects)


def measure_once(tools: Path, scale: float, measured: dict[str, Values]) -> None:
    """Run the workloads that all servers support once."""
    for name, (is_installed, start) in COMPETITORS.items():
        if not is_installed():
            print(f"{name} is not installed: skipped", file=sys.stderr)
            continue
        for work in WORKLOADS:
            with start(tools) as target:
                add(measured.setdefault(name, {}), work(tools, target, scale))


@contextlib.contextmanager
def _script(command: list[str], name: str) -> Iterator[Target]:
    port, admin_port = free_port(), free_port()
    with running([*command, str(port), str(admin_port)], port, env=pid_environment()) as pid:
        yield Target(name, port, admin_port, (pid,))


def _websockets(_tools: Path) -> AbstractContextManager[Target]:
    return _script([sys.executable, str(OTHERS / "websockets_server.py")], "websockets")


def _ws(_tools: Path) -> AbstractContextManager[Target]:
    return _script(["node", str(OTHERS / "ws_server.js")], "ws (Node.js)")


@contextlib.contextmanager
def _nchan(tools: Path) -> Iterator[Target]:
    port, admin_port = free_port(), free_port()
    config = tools / "nchan.conf"
    text = (OTHERS / "nchan.conf").read_text()
    names = {"MODULE": NCHAN, "FOLDER": tools, "CLIENT_PORT": port, "ADMIN_PORT": admin_port}
    for word, value in names.items():
        text = text.replace(word, str(value))
    config.write_text(text)
    with running(["nginx", "-c", str(config)], port) as master:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        paths = ("--path", "/sub/CH-%c", "--open", "none", "--pub-path", "/pub/CH-%c")
        yield Target("nchan", port, admin_port, tuple(map(int, children)), paths)


def _has_ws() -> bool:
    if shutil.which("node") is None:
        return False
    asked = ["node", "-e", "require('ws')"]
    return subprocess.run(asked, cwd=OTHERS, capture_output=True, check=False).returncode == 0


def _has_websockets() -> bool:
    return (
        subprocess.run(
            [sys.executable, "-c", "import websockets"], capture_output=True, check=False
        ).returncode
        == 0
    )


COMPETITORS: dict[str, tuple[Callable[[], bool], Callable[[Path], AbstractContextManager[Target]]]] = {
    "nchan": (lambda: NCHAN.exists() and shutil.which("nginx") is not None, _nchan),
    "websockets": (_has_websockets, _websockets),
    "ws (Node.js)": (_has_ws, _ws),
}
