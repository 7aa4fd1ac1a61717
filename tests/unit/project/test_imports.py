"""The arrows of docs/architecture.md that import-linter cannot see."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.project.repository import ROOT, python_files, text_of

PROJECT_PACKAGES = ("shared", "functions", "local", "cli", "aks_serving", "tests")
AZURE_ALLOWED: dict[str, tuple[str, ...]] = {
    "function_app.py": ("azure.functions",),
    "functions/_tracing.py": ("azure.functions", "azure.monitor.opentelemetry.exporter"),
    "functions/": ("azure.functions",),
    "shared/store/": ("azure.core", "azure.cosmos", "azure.identity", "azure.storage.blob", "azure.storage.queue"),
    "cli/upload.py": ("azure.core", "azure.identity", "azure.storage.blob"),
    "local/": ("azure.core", "azure.functions", "azure.storage.blob", "azure.storage.queue"),
}


def imports_of(source: str, naming: str) -> Iterator[str]:
    """What a source imports whose name holds a word. A source without the word is not parsed: that takes long."""
    return (name for name in _imports_in(source) if naming in name) if naming in source else iter(())


def _imports_in(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stands_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def stray_azure_imports(path: str, source: str) -> list[str]:
    allowed = next((names for place, names in AZURE_ALLOWED.items() if path.startswith(place)), ())
    azure = [name for name in imports_of(source, "azure") if stands_in(name, ("azure",))]
    return [name for name in azure if not stands_in(name, allowed)]


def test_azure_packages_are_imported_only_where_they_belong() -> None:
    stray = {path: stray_azure_imports(path, text_of(path)) for path in python_files() if not path.startswith("tests/")}
    assert {path: names for path, names in stray.items() if names} == {}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("shared/rollout/decide.py", "import azure.functions"),
        ("functions/admin.py", "def f():\n    from azure.storage.blob import BlobClient"),
        ("shared/store/blobs.py", "import azure.functions as func"),
        ("cli/client.py", "from azure import storage"),
    ],
)
def test_a_stray_azure_import_is_found(path: str, source: str) -> None:
    assert stray_azure_imports(path, source)


def test_the_app_imports_its_blueprints_and_nothing_imports_the_app() -> None:
    assert all(stands_in(name, ("azure.functions", "functions")) for name in _imports_in(text_of("function_app.py")))
    importers = [
        path
        for path in python_files()
        if any(stands_in(name, ("function_app",)) for name in imports_of(text_of(path), "function_app"))
    ]
    assert [path for path in importers if not path.startswith("tests/")] == []


@pytest.mark.parametrize("package", PROJECT_PACKAGES)
def test_the_packages_are_those_of_this_repository(package: str) -> None:
    found = importlib.import_module(package).__file__
    assert found is not None
    assert Path(found).resolve().is_relative_to(ROOT)


def edits_the_import_path(source: str) -> bool:
    # Few files name it at all: only those are parsed.
    if not re.search(r"sys\s*\.\s*path|syspath_prepend", source):
        return False
    for node in ast.walk(ast.parse(source)):
        target = node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            written = [t.value if isinstance(t, ast.Subscript) else t for t in targets]
            if any(ast.unparse(t) == "sys.path" for t in written):
                return True
            continue
        else:
            continue
        if ast.unparse(target) == "sys.path" or "syspath_prepend" in ast.unparse(node.func):
            return True
    return False


def test_nothing_edits_the_import_path() -> None:
    assert [path for path in python_files() if edits_the_import_path(text_of(path))] == []


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.path.insert(0, 'x')",
        "sys.path.append('x')",
        "sys.path += ['x']",
        "sys.path[:0] = ['x']",
        "sys.path = []",
    ],
)
def test_an_edit_of_the_import_path_is_found(source: str) -> None:
    assert edits_the_import_path(source)
    assert not edits_the_import_path("import sys\nprint(sys.path[0])")
