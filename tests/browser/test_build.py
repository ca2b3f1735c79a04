"""The served script and its type declarations are built from the sources, and the script is small."""

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

import aphlict
from tests.docs.pages import ROOT, examples
from tests.proxies.programs import require

FOLDER = Path(aphlict.__file__).parent / "browser"
BUILT = FOLDER / "aphlict.js"
MAX_COMPRESSED_SIZE = 8_500  # bytes; every page loads them. There were 7,432 when this bound was chosen


@pytest.fixture
def npm() -> str:
    """The program npm, with what package.json asks for installed."""
    program = require("npm", "npm")
    if not (FOLDER / "node_modules").exists():
        require("tsc", f"nothing: run npm ci in {FOLDER}")
    return program


def run(npm: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [npm, "run", "--silent", script, "--", *arguments]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)


def test_the_types_of_client_and_console_are_right(npm: str) -> None:
    done = run(npm, "check")
    assert done.returncode == 0, done.stdout


def test_the_script_is_up_to_date(npm: str, tmp_path: Path) -> None:
    done = run(npm, "script", f"--outfile={tmp_path / 'aphlict.js'}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "aphlict.js").read_text() == BUILT.read_text(), "aphlict.js: run 'npm run build'"


def test_the_declarations_are_up_to_date(npm: str, tmp_path: Path) -> None:
    done = run(npm, "types", "--outDir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    declared = (FOLDER / "aphlict.d.ts").read_text()
    assert (tmp_path / "aphlict.d.ts").read_text() == declared, "aphlict.d.ts: run 'npm run build'"


def test_the_script_is_small() -> None:
    assert len(gzip.compress(BUILT.read_bytes())) < MAX_COMPRESSED_SIZE


def test_the_package_has_the_version_and_its_files() -> None:
    package = json.loads((FOLDER / "package.json").read_text())
    assert package["version"] == aphlict.__version__
    assert "dependencies" not in package
    for file in (package["exports"]["."]["default"], package["exports"]["."]["types"]):
        assert (FOLDER / file).exists()


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (FOLDER / "package-lock.json").read_text()


def test_the_examples_of_the_manual_are_right(npm: str, tmp_path: Path) -> None:
    first, *others = [example.text for example in examples(ROOT / "docs" / "browser.md", "js")]
    declared, loose = (
        f'from "{FOLDER}/aphlict.js"',
        {"noUnusedLocals": False, "noImplicitAny": False, "useUnknownInCatchVariables": False},
    )
    text = "\n".join(
        [re.sub(r'from "https://.*"', declared, first), "const showTask = async () => {};", *others]
    )
    (tmp_path / "examples.js").write_text(text)
    options = {"extends": f"{FOLDER}/tsconfig.json", "compilerOptions": loose, "include": ["examples.js"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(options))
    done = run(npm, "check", "-p", str(tmp_path))
    assert done.returncode == 0, done.stdout
