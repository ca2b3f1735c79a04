"""Run Apache in a temporary folder, with the modules that a file of conf/ requires."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proxies.programs import put, require, running, workplace

MODULE_FOLDERS = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules")
BASE_MODULES = (
    "mpm_event",
    "authz_core",
    "dir",
    "mime",
    "env",
    "filter",
    "deflate",
)  # enabled by Debian, and required
MAIN = """\
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/apache.pid"
Mutex file:{folder}
ServerName localhost
ErrorLog "{folder}/error.log"
LogLevel info
Listen 127.0.0.1:{port}
TypesConfig /dev/null
{modules}
{server}
<VirtualHost 127.0.0.1:{port}>
    DocumentRoot "{folder}/site"
{host}
</VirtualHost>
"""
SMALL = """\
StartServers 1
ServerLimit 1
ThreadLimit {threads}
ThreadsPerChild {threads}
MaxRequestWorkers {threads}
"""


@contextmanager
def apache(
    host: str, port: int, *, server: str | None = None, modules: tuple[str, ...] = ()
) -> Iterator[Path]:
    """Run Apache on a port with these lines in its virtual host. Yields its folder."""
    program = require("apache2", "apache2")
    with workplace() as folder:
        put(folder, "site/index.html", "the site\n")
        main = MAIN.format(
            folder=folder,
            port=port,
            modules=_load((*BASE_MODULES, *modules, *needed(host))),
            server=small() if server is None else server,
            host=host,
        )
        put(folder, "apache.conf", main)
        with running([program, "-f", f"{folder}/apache.conf", "-DFOREGROUND"], folder, port):
            yield folder


def small(threads: int = 16) -> str:
    """Return the directives of the event MPM for one process with this many threads."""
    return SMALL.format(threads=threads)


def read_log(folder: Path) -> list[str]:
    """Return the lines of Apache's error log."""
    return (folder / "error.log").read_text().splitlines()


def needed(text: str) -> list[str]:
    """Return the modules that a file of conf/ lists after `a2enmod`."""
    found = re.search(r"a2enmod ((?:[a-z_]+ ?)+)((?:\n#     [a-z_ ]+)*)", text)
    return f"{found[1]} {found[2]}".replace("#", " ").split() if found else []


def _load(names: tuple[str, ...]) -> str:
    folder = next((each for each in map(Path, MODULE_FOLDERS) if each.is_dir()), None)
    if folder is None:
        pytest.fail(f"Apache's modules are in none of {', '.join(MODULE_FOLDERS)}")
    ordered = sorted(set(names), key=lambda name: (name != "watchdog", name != "proxy", names.index(name)))
    return "\n".join(
        f"LoadModule {name}_module {folder}/mod_{name}.so"
        for name in ordered
        if (folder / f"mod_{name}.so").exists()  # the others are built in
    )
