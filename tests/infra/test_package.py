"""The package of the functions app: it holds the app, and the app runs from it with what requirements.txt installs."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from cli.deploy_package import IGNORE_FILE, is_ignored, packaged, read_patterns, write_package
from cli.main import run
from shared.core.errors import InvalidInputError
from tests.unit.project.repository import ROOT, text_of

TOPS = {"function_app.py", "functions", "host.json", "requirements.txt", "shared"}
# Added to what is deployed by whoever wants it (docs/observability.md).
OPTIONAL = {"azure.monitor.opentelemetry.exporter"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    write_package(ROOT, folder / "app.zip")
    with zipfile.ZipFile(folder / "app.zip") as archive:
        archive.extractall(folder / "app")
    return folder / "app"


def installed() -> set[str]:
    """What requirements.txt installs."""
    return {canonicalize_name(name) for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text_of("requirements.txt"))}


@cache
def modules_of(distribution: str) -> frozenset[str]:
    """The first names of the modules that a distribution holds; none where this machine's Python needs it not."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return frozenset()
    tops = {file.parts[0] for file in files if file.suffix in {".py", ".so"}}
    return frozenset(top.partition(".")[0] for top in tops)


def tops_of(found: set[str]) -> set[str]:
    """The first names of the modules that distributions hold."""
    return {top for distribution in found for top in modules_of(distribution)}


@cache
def imports_of(text: str) -> tuple[str, ...]:
    """Every module that a text imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(text)))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return (*plain, *(n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0 and n.module))


def imports(folder: Path) -> Iterator[tuple[str, str]]:
    """Every module that a file of the package imports, and the file."""
    for path in sorted(folder.rglob("*.py")):
        yield from ((module, path.name) for module in imports_of(path.read_text("utf-8")))


def homeless(folder: Path, found: set[str]) -> list[tuple[str, str]]:
    """Imports that neither Python, nor the package, nor one of `found` holds."""
    tops = tops_of(found)
    unknown = []
    for module, path in imports(folder):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names or module in OPTIONAL:
            continue
        if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
            if (
                not (folder / Path(*module.split("."))).is_dir()
                and not (folder / Path(*module.split(".")).with_suffix(".py")).is_file()
            ):
                unknown.append((module, path))
        elif top not in tops:
            unknown.append((module, path))
    return unknown


def test_it_holds_the_app_and_nothing_else(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == TOPS
    assert not [path for path in unpacked.rglob("*") if path.name == "__pycache__" or path.suffix in {".md", ".pyc"}]
    assert json.loads((unpacked / "host.json").read_text())["version"] == "2.0"


def test_every_import_in_it_is_there_or_installed(unpacked: Path) -> None:
    assert homeless(unpacked, installed()) == []
    assert {module for module, _ in homeless(unpacked, installed() - {"onnx", "pyarrow"})} > {"onnx", "pyarrow"}
    (unpacked / "shared" / "stray.py").write_text("import shared.nowhere, local.host, pytest\n")
    assert {module for module, _ in homeless(unpacked, installed())} == {"shared.nowhere", "local.host", "pytest"}
    (unpacked / "shared" / "stray.py").unlink()


def test_the_app_is_found_in_it_alone_and_loads_what_is_installed_alone(unpacked: Path) -> None:
    # What this environment has beyond requirements.txt is as if it were not there.
    script = (
        "import json, sys\n"
        "class Refusing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in allowed and not name.startswith('_sysconfigdata'):\n"
        "            raise ModuleNotFoundError(f'{name} is not installed there', name=name)\n"
        "allowed = set(json.load(sys.stdin)) | sys.stdlib_module_names | {'function_app', 'functions', 'shared'}\n"
        "sys.meta_path.insert(0, Refusing())\n"
        "import function_app\n"
        "names = sorted(function.get_function_name() for function in function_app.app.get_functions())\n"
        "files = {n: f for n, m in list(sys.modules.items()) if (f := getattr(m, '__file__', None))}\n"
        "print(json.dumps({'functions': names, 'files': files}))\n"
    )
    # -S: no `.pth` file of ours may lead to the repository.
    ended = subprocess.run(
        [sys.executable, "-S", "-P", "-c", script],
        input=json.dumps(sorted(tops_of(installed()))),
        env={"PYTHONPATH": f"{unpacked}:{sysconfig.get_path('purelib')}", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=unpacked,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-2000:]
    told = json.loads(ended.stdout)
    assert {"register_from_event", "validate", "health"} <= set(told["functions"])
    ours = {
        file for name, file in told["files"].items() if name.split(".")[0] in {"function_app", "functions", "shared"}
    }
    assert len(ours) > 50
    assert [file for file in ours if not file.startswith(str(unpacked))] == []
    assert "aiohttp" not in {name.split(".")[0] for name in told["files"]}, "it is installed here, and not there"


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_package(ROOT, tmp_path / "one.zip"), write_package(ROOT, tmp_path / "two.zip")

    assert first == second
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert first.files == len(packaged(ROOT))


@pytest.mark.parametrize(
    ("name", "ignored"),
    [
        ("docs/x.py", True),
        ("docs", False),  # a file of that name is no folder
        ("shared/docs/x.py", True),  # a folder of that name anywhere, as git has it
        ("shared/README.md", True),
        ("shared/readme.txt", False),
        ("infra/bicep/a.bicep", True),
        ("infra/bicep2/a.bicep", False),
        ("shared/infra/bicep/a.bicep", False),
        ("slipway", True),
        ("slipways", False),
    ],
)
def test_names_are_left_out_as_git_does(name: str, ignored: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a case
    text = "docs/\n# a remark\n*.md\n/infra/bicep/\nslipway\n"
    (tmp_path / ".gitignore").write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    git = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", name], cwd=tmp_path, check=False)

    assert is_ignored(name, read_patterns(text)) == ignored == (git.returncode == 0)


@pytest.mark.parametrize("pattern", ["!shared/", "**/docs", "a\\ b"])
def test_a_pattern_that_would_be_read_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match=IGNORE_FILE):
        read_patterns(f"docs/\n{pattern}\n")


def test_the_command_tells_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["package", str(tmp_path / "app.zip"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size_bytes"] == (tmp_path / "app.zip").stat().st_size
    assert run(["package", str(tmp_path / "nowhere" / "app.zip")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["app.zip"]


def test_what_is_no_functions_app_is_not_packed(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / IGNORE_FILE).write_text("host.json\n")
    for name in ("host.json", "function_app.py"):
        (tmp_path / name).write_text("")

    with pytest.raises(InvalidInputError, match=r"host\.json, no requirements\.txt"):
        write_package(tmp_path, tmp_path / "app.zip")
    assert not (tmp_path / "app.zip").exists()
