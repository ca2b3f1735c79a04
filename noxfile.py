"""The checks of the project: `bin/test` runs lint, types and tests, `.ci/run` all sessions."""

import os
import subprocess
import sys
from pathlib import Path

import nox

# These sessions run in the environment that nox itself is installed in.
HERE = "none"

# One Python is enough for the tests of other programs, of the manual, and of bin/aphlict, which finds its own Python.
OTHER_PROGRAMS = (
    "benchmarks",
    "browser",
    "server/conformance",
    "docs",
    "faults",
    "monitoring",
    "proxies",
    "cli/test_first_use.py",
)

# Prints the version; fails if no environment can be made with it, and for anything but a released CPython.
DESCRIBE = """
import ensurepip, sys, venv
assert (sys.implementation.name, sys.version_info.releaselevel) == ("cpython", "final")
print(*sys.version_info[:3], sep=".")
"""


@nox.session(venv_backend=HERE)
def lint(session: nox.Session) -> None:
    """Check format and lint."""
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session(venv_backend=HERE)
def types(session: nox.Session) -> None:
    """Check types."""
    session.run("mypy")


@nox.session(venv_backend=HERE)
def tests(session: nox.Session) -> None:
    """Run all tests, several at a time."""
    session.run("pytest", "--numprocesses=auto", *session.posargs)


def find_pythons() -> dict[tuple[int, ...], str]:
    """Find the supported Pythons on the path and from pyenv: version to program."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += (Path.home() / ".pyenv/versions").glob("3.*/bin")
    found = {}
    for program in [path for folder in folders for path in folder.glob("python3.[0-9]*")]:
        if program.suffix[1:].isdecimal():
            done = subprocess.run([program, "-c", DESCRIBE], capture_output=True, text=True, check=False)
            version = tuple(int(part) for part in done.stdout.split(".")) if done.returncode == 0 else ()
            if version >= (3, 10):
                found[version] = str(program)
    return found


def other_pythons() -> list[object]:
    """List the oldest and the newest Python, without the version that `tests` runs with."""
    found = find_pythons()
    return [
        nox.param(found[version], id=".".join(map(str, version)))
        for version in sorted({min(found), max(found)})
        if version != sys.version_info[:3]
    ]


@nox.session(venv_backend="venv", default=False)
@nox.parametrize("python", other_pythons())
def pythons(session: nox.Session) -> None:
    """Run the tests of the package with the oldest and the newest Python."""
    session.install("--editable", ".[test]")
    ignored = [f"--ignore=tests/{name}" for name in OTHER_PROGRAMS]
    session.run("pytest", "--numprocesses=auto", "-p", "no:cacheprovider", *ignored, *session.posargs)


@nox.session(venv_backend=HERE, default=False)
def browser_client(session: nox.Session) -> None:
    """Install what the browser client is built with; check its types, and that the built file is up to date."""
    with session.chdir("aphlict/browser"):
        session.run("npm", "ci", "--silent", "--no-fund", "--no-audit")
    session.run("pytest", "tests/browser/test_build.py")
