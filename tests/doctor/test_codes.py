"""The codes of the doctor are in the manual."""

import re

from aphlict import errors
from tests.docs.pages import ROOT

CODE = re.compile(
    r"""CheckFailed\(\s*"(\w+)"|\.warn\(\s*(?:"[^"]+"|name),\s*"(\w+)"|^UNAVAILABLE = "(\w+)\"""",
    re.MULTILINE,
)


def test_each_code_is_in_the_table() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "aphlict/doctor").glob("*.py")))
    used = {code for groups in CODE.findall(sources) for code in groups if code}
    table = (
        (ROOT / "docs/troubleshooting.md")
        .read_text()
        .split("\n## Codes of the doctor\n")[1]
        .split("\n## ")[0]
    )
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(documented) == sorted(used)


def test_no_code_of_the_doctor_is_that_of_an_error() -> None:
    own = {
        each.code
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.AphlictError)
    }
    table = (ROOT / "docs/troubleshooting.md").read_text().split("\n## Codes of the doctor\n")[1]
    assert own.isdisjoint(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
