"""The Autobahn test suite: find or install it, run it and read its report. It needs Python 2.7."""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
VIRTUALENV = "virtualenv==20.15.1"  # the last version that supports Python 2.7
INSTALL_TIMEOUT = 240
RUN_TIMEOUT = 240

# 12 and 13 are about permessage-deflate, which this server does not negotiate.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]


class Missing(Exception):
    """The suite is not available here; str() is the reason."""


class Result(NamedTuple):
    """The suite's result of a case: the messages, and the close at the end."""

    case: str
    behaviour: str
    close: str


def find(cache: Path) -> Path:
    """Return the suite's program: WSTEST, or one in an environment that is created in the cache."""
    if named := os.environ.get("WSTEST"):
        return Path(named)
    home = cache / "environment"
    program = home / "bin" / "wstest"
    if not program.exists():
        _install(_python27(), cache / "virtualenv", home)
    return program


def _python27() -> str:
    """Return an interpreter of Python 2.7, from the path or pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found: Iterator[str | None] = (str(path) for path in sorted(root.glob("versions/2.7*/bin/python2.7")))
    for candidate in (*found, shutil.which("python2.7")):
        if candidate and _has_pip(candidate):
            return candidate
    raise Missing("there is no Python 2.7 with pip, which the Autobahn test suite needs")


def _has_pip(python: str) -> bool:
    return (
        subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    )


def _install(python: str, tool: Path, home: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    _run([python, "-m", "pip", "install", "--quiet", "--target", str(tool), VIRTUALENV], clean)
    _run([python, "-m", "virtualenv", "--quiet", str(home)], {**clean, "PYTHONPATH": str(tool)})
    _run([str(home / "bin" / "pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS)], clean)


def _run(command: list[str], environment: dict[str, str]) -> None:
    try:
        subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=True
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no word of why").splitlines()[-1]
        raise Missing(f"the Autobahn test suite cannot be installed: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise Missing("the Autobahn test suite takes too long to install") from error


def examine(program: Path, url: str, folder: Path, cases: Sequence[str] = CASES) -> list[Result]:
    """Run cases against the echo server at this address."""
    specification = {
        "outdir": str(folder / "report"),
        "servers": [{"agent": "aphlict", "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = folder / "specification.json"
    path.write_text(json.dumps(specification))
    subprocess.run(
        [program, "--mode", "fuzzingclient", "--spec", path],
        cwd=folder,
        capture_output=True,
        timeout=RUN_TIMEOUT,
        check=True,
    )
    report = json.loads((folder / "report" / "index.json").read_text())["aphlict"]
    return [Result(case, each["behavior"], each["behaviorClose"]) for case, each in report.items()]


def summary(results: list[Result]) -> str:
    """Return a line with the number of cases by result."""
    counted = Counter(result.behaviour for result in results)
    return f"{len(results)} cases: " + ", ".join(f"{count} {name}" for name, count in counted.most_common())
