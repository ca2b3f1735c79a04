"""The structure in docs/architecture.md is that of the code: packages, imports, sizes."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

from tests.docs.pages import ROOT

TEXT = (ROOT / "docs/architecture.md").read_text()
PACKAGE = "aphlict"
LONGEST_MODULE = 450  # lines: few come near 400, none goes much past it
LISTS = {"aphlict.errors"}  # one class after the other: it is searched, not read
MAX_MODULES = 123
MAX_LAYERS = 9
LONGEST_FUNCTION = 40
MEDIAN_FUNCTION = 10

# The modules of a package that the tests of others may import.
INTERFACES = {
    *("cli.main", "config.loader", "config.settings"),
    *(
        "core.hub",
        "core.message",
        "core.metrics",
        "core.overview",
        "core.sequencer",
        "core.state",
        "core.stats",
    ),
    *("core.trace_report", "core.trace_text"),
    *("protocol.http", "protocol.websocket", "server.auth", "server.server"),
}
# Tests that import more: the numbers in the manual, files that a supervisor has read, and costs across packages.
INSIDERS = {
    "tests/cluster/test_secrets.py",
    "tests/config/test_documentation.py",
    "tests/server/test_access_fuzz.py",
    "tests/server/test_write_buffer.py",
}

PACKAGES = re.findall(r"^\| `(\w+)` \|", TEXT.split("## Packages")[1].split("\n## ")[0], re.MULTILINE)
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    if "node_modules" not in path.parts
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules of the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)


def package(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def modules() -> list[str]:
    """The modules that have contents of their own."""
    return [name for name, path in FILES.items() if path.name != "__init__.py"]


def repeated(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_package_is_in_the_table() -> None:
    assert sorted(PACKAGES) == sorted({package(name) for name in FILES} - {"", "__main__"})


def test_a_package_imports_only_from_packages_above_it() -> None:
    upwards = [
        f"{name} imports {other}"
        for name in FILES
        if package(name) in PACKAGES
        for other in imports(TREES[name])
        if package(other) and PACKAGES.index(package(other)) > PACKAGES.index(package(name))
    ]
    assert upwards == []


def test_the_packages_form_few_layers() -> None:
    below = {package(name): set[str]() for name in FILES}
    for name in FILES:
        below[package(name)] |= {package(other) for other in imports(TREES[name])} - {package(name), ""}
    layers: dict[str, int] = {}
    for name in TopologicalSorter(below).static_order():
        layers[name] = 1 + max((layers[each] for each in below[name]), default=0)
    assert max(layers.values()) <= MAX_LAYERS, layers


def test_there_are_few_modules() -> None:
    assert len(modules()) <= MAX_MODULES


def test_no_two_modules_share_a_name() -> None:
    assert repeated(name.rpartition(".")[2] for name in modules()) == set()


def test_no_two_public_classes_share_a_name() -> None:
    classes = [
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert repeated(classes) == set()


def test_tests_import_only_the_interfaces_of_other_packages() -> None:
    inside = [
        f"{path} imports {other}"
        for path in (each.relative_to(ROOT) for each in sources() if each.is_relative_to(ROOT / "tests"))
        if path.parts[1] != "support" and str(path) not in INSIDERS
        for other in imports(ast.parse((ROOT / path).read_text()))
        if other.count(".") > 1 and package(other) != path.parts[1]
        if other.partition(".")[2] not in INTERFACES
    ]
    assert inside == []


def test_no_import_goes_in_a_circle() -> None:
    order = TopologicalSorter({name: set(imports(TREES[name])) - {name} for name in FILES}).static_order()
    assert set(FILES) <= set(order)


def test_nothing_is_imported_inside_a_function() -> None:
    inside = [
        name
        for name, function in functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


def test_no_module_is_long() -> None:
    sizes = {name: path.read_text().count("\n") for name, path in FILES.items()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_MODULE and name not in LISTS} == {}


def test_functions_are_short() -> None:
    sizes = {name: lines(node) for name, node in functions()}
    assert {name: size for name, size in sizes.items() if size > LONGEST_FUNCTION} == {}
    assert median(lines(node) for _, node in functions()) < MEDIAN_FUNCTION


def sources() -> list[Path]:
    folders = ("aphlict", "tests", "benchmarks", "examples")
    return [
        path
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "node_modules" not in path.parts
    ]


def test_every_module_says_what_it_is_in_one_line() -> None:
    """`examples` and long ones may say more."""
    wordless = [path for path in sources() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert [str(path.relative_to(ROOT)) for path in wordless] == []


def test_every_dependency_has_its_reason() -> None:
    wanted = (ROOT / "setup.cfg").read_text().split("install_requires =\n")[1].split("\n\n")[0]
    names = {line.split()[0].lower() for line in wanted.splitlines()}
    documented = re.findall(r"^\| (\w+) \|", TEXT.split("## Dependencies")[1], re.MULTILINE)
    assert {name.lower() for name in documented} - {"dependency"} == names
