"""bin/aphlict in a fresh clone: it creates its environment once, and names what is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from aphlict import __version__
from tests.support.installation import PROJECT

pytestmark = pytest.mark.timeout(300)  # packages are downloaded

NOT_IN_A_CLONE = shutil.ignore_patterns(
    ".git", ".venv", "node_modules", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)
ANNOUNCEMENT = "setting up Python packages in"


def clone(folder: Path) -> Path:
    """Copy the project without what is not in the repository."""
    return Path(shutil.copytree(PROJECT, folder / "project", ignore=NOT_IN_A_CLONE))


def begin(program: Path, *words: str, **more: str) -> "subprocess.Popen[str]":
    """Start a program in the folder /, without variables of Python."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return subprocess.Popen(
        [str(program), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | more,
    )


def run(program: Path, *words: str, **more: str) -> tuple[int, str, str]:
    """Run a program, and return exit status, output and errors."""
    with begin(program, *words, **more) as process:
        out, err = process.communicate()
    return process.returncode, out, err


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A clone that the tests of this module use one after the other."""
    with TemporaryDirectory() as folder:
        yield clone(Path(folder))


def test_concurrent_first_uses_set_up_once(project: Path) -> None:
    program = project / "bin" / "aphlict"
    processes = [begin(program, "--version") for _ in range(3)]
    results = [(*process.communicate(), process.returncode) for process in processes]
    assert [(out, status) for out, _, status in results] == [(f"aphlict {__version__}\n", 0)] * 3
    assert sum(err.count(ANNOUNCEMENT) for _, err, _ in results) == 1
    assert all(err.count("\n") <= 1 for _, err, _ in results)


def test_later_uses_print_nothing_also_through_a_link(project: Path, tmp_path: Path) -> None:
    link, second = tmp_path / "aphlict", tmp_path / "second"
    link.symlink_to(project / "bin" / "aphlict")
    second.symlink_to("aphlict")
    status, out, err = run(second, "status")
    assert (status, err) == (1, "")
    assert str(project / "conf" / "aphlict" / "aphlict.default.json") in out


def test_a_command_takes_less_than_half_a_second(project: Path) -> None:
    program = project / "bin" / "aphlict"
    used = []
    for _ in range(3):
        before = os.times()
        assert run(program, "status")[0] == 1
        after = os.times()
        used.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(used) < 0.5


def test_changed_requirements_are_installed(project: Path) -> None:
    with (project / "setup.cfg").open("a") as file:
        file.write("\n# changed\n")
    assert ANNOUNCEMENT in run(project / "bin" / "aphlict", "--version")[2]
    assert ANNOUNCEMENT not in run(project / "bin" / "aphlict", "--version")[2]


def test_an_unreachable_network(project: Path) -> None:
    with (project / "setup.cfg").open("a") as file:
        file.write("\n# changed again\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    status, out, err = run(project / "bin" / "aphlict", "status", **offline)
    assert (status, out) == (1, "")
    assert "aphlict: cannot install the packages; is the network reachable? Could not find" in err
    assert "Traceback" not in err


def test_a_moved_project_is_set_up_again(project: Path) -> None:
    moved = project.rename(project.with_name("moved"))
    assert run(moved / "bin" / "aphlict", "--version")[:2] == (0, f"aphlict {__version__}\n")
    moved.rename(project)


def test_an_unfinished_set_up_is_repeated(tmp_path: Path) -> None:
    copy = clone(tmp_path)
    (copy / ".venv" / "bin").mkdir(parents=True)
    (copy / ".venv" / "bin" / "python").symlink_to("/no/such/python")
    assert run(copy / "bin" / "aphlict", "--version")[0] == 0


@pytest.mark.parametrize(
    ("fails_on", "sentence"),
    [
        ("ensurepip", "Python's venv module is missing: apt-get install python3-venv"),
        ("version_info", "Python 3.10 or newer is needed (Debian: apt-get install python3)"),
    ],
)
def test_a_missing_python(tmp_path: Path, fails_on: str, sentence: str) -> None:
    program = clone(tmp_path) / "bin" / "aphlict"
    fake = tmp_path / "python3"
    fake.write_text(
        f'#!/bin/sh\ncase "$2" in *{fails_on}*) exit 1 ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    fake.chmod(0o755)
    status, _, err = run(program, "status", PYTHON=str(fake))
    assert (status, sentence in err) == (1, True), err
