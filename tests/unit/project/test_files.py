"""The layout, what is deployed, and what no tracked file may hold."""

import fnmatch
import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.unit.project.repository import ROOT, text_of, tracked_files

LAYOUT = (
    "function_app.py",
    "host.json",
    "local.settings.sample.json",
    "requirements.txt",
    ".funcignore",
    "slipway",
    ".ci/run",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    *(f"functions/{name}.py" for name in ("__init__", "_services")),
    *(
        f"shared/{name}/__init__.py"
        for name in ("core", "store", "registry", "validation", "rollout", "routing", "telemetry", "audit")
    ),
    "aks-serving/pyproject.toml",
    "aks-serving/aks_serving/__main__.py",
    "local/host/__main__.py",
    "cli/main.py",
)
DEPLOYED = ("function_app.py", "functions", "host.json", "requirements.txt", "shared")

# Written with a mark in each, so that this file does not hold what it looks for.
REGISTRIES = tuple(
    name.replace("|", "")
    for name in ("pypi|.org", "files.python|hosted", "registry.npm|js", "npm|mirror", "art|ifactory")
)
MACHINE_PATHS = re.compile("/roo[t]/|/hom[e]/[a-z]|/User[s]/[A-Za-z]|/wor[k]/[a-z]|/op[t]/[a-z]")


def deployed(top_level: str) -> bool:
    patterns = [line for line in text_of(".funcignore").splitlines() if line and not line.startswith("#")]
    return not any(fnmatch.fnmatch(top_level, pattern.rstrip("/")) for pattern in patterns)


@pytest.mark.parametrize("path", LAYOUT)
def test_the_layout_holds(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_deployed_package_holds_the_app_alone() -> None:
    tops = {path.split("/")[0] for path in tracked_files()} - {".gitignore", ".funcignore"}
    assert {top for top in tops if deployed(top)} == set(DEPLOYED)


@pytest.mark.parametrize(
    "name", ["aks-serving", "local", "tests", "infra", "docs", "benchmarks", "cli", ".venv", "node_modules", ".slipway"]
)
def test_what_the_app_does_not_need_is_not_deployed(name: str) -> None:
    assert not deployed(name)


def test_no_file_names_a_package_registry() -> None:
    found = {path: host for path in tracked_files() for host in REGISTRIES if host in text_of(path).lower()}
    assert found == {}


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert [path for path in tracked_files() if MACHINE_PATHS.search(text_of(path))] == []


@pytest.mark.parametrize("path", ["slipway", ".ci/run"])
def test_the_scripts_can_be_run(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)


def test_ci_runs_what_a_person_runs() -> None:
    commands = [line for line in text_of(".ci/run").splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec ./slipway test"]


def test_no_state_of_a_machine_is_tracked() -> None:
    assert not {Path(path).parts[0] for path in tracked_files()} & {".venv", ".uv", "node_modules", ".slipway"}


def test_every_test_is_collected_and_unit_tests_come_first() -> None:
    paths = tomllib.loads(text_of("pyproject.toml"))["tool"]["pytest"]["ini_options"]["testpaths"]
    tests = [path for path in tracked_files() if path.startswith("tests/") and Path(path).name.startswith("test_")]
    assert [path for path in tests if not path.startswith(tuple(f"{collected}/" for collected in paths))] == []
    assert paths[0] == "tests/unit"
