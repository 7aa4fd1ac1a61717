"""The lock files hold what the project declares, name no registry, and agree with each other."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.unit.project.repository import ROOT

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def pins(path: str) -> dict[str, Version]:
    return {canonicalize_name(name): Version(version) for name, version in PIN.findall((ROOT / path).read_text())}


def project(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def declared() -> list[Requirement]:
    main, serving = project("pyproject.toml"), project("aks-serving/pyproject.toml")
    groups = [entry for group in main["dependency-groups"].values() for entry in group if isinstance(entry, str)]
    return [
        Requirement(text) for text in (*main["project"]["dependencies"], *serving["project"]["dependencies"], *groups)
    ]


def test_every_declared_dependency_is_locked_within_its_range() -> None:
    locked = pins("requirements.lock")
    for requirement in declared():
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock: run ./slipway lock"
        assert version in requirement.specifier, f"{requirement} is locked at {version}: run ./slipway lock"


def test_the_image_of_the_model_server_gets_the_versions_that_are_tested() -> None:
    locked, image = pins("requirements.lock"), pins("aks-serving/requirements.txt")
    serving = project("aks-serving/pyproject.toml")["project"]
    extras = serving["optional-dependencies"]
    wanted = [*serving["dependencies"], *extras["grpc"], *extras["tracing"]]

    assert {name: locked.get(name) for name in image} == image
    for requirement in map(Requirement, wanted):
        version = image.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in aks-serving/requirements.txt: run ./slipway lock"
        assert version in requirement.specifier
    assert not {"azure-functions", "onnx", "pytest", "scipy"} & image.keys()


def test_the_deployed_app_gets_the_versions_that_are_tested() -> None:
    locked, deployed = pins("requirements.lock"), pins("requirements.txt")
    assert {name: locked.get(name) for name in deployed} == deployed
    runtime = {
        canonicalize_name(Requirement(text).name) for text in project("pyproject.toml")["project"]["dependencies"]
    }
    assert runtime <= deployed.keys()
    assert not {"pytest", "ruff", "scikit-learn", "typer"} & deployed.keys()


@pytest.mark.parametrize(
    "path", ["requirements.lock", "requirements.txt", "aks-serving/requirements.txt", ".ci/uv.txt", ".ci/node.txt"]
)
def test_every_locked_package_carries_hashes(path: str) -> None:
    for line in (ROOT / path).read_text().replace("\\\n", " ").splitlines():
        assert PIN.match(line), line
        assert "--hash=sha256:" in line, line


def test_the_emulators_lock_matches_what_is_declared() -> None:
    declared_npm = json.loads((ROOT / "package.json").read_text())
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    for kind in ("dependencies", "devDependencies"):
        assert locked[""][kind] == declared_npm[kind]
        for name, version in declared_npm[kind].items():
            assert locked[f"node_modules/{name}"]["version"] == version
    bare = [name for name, entry in locked.items() if name and not entry.get("link") and "integrity" not in entry]
    assert bare == []


@pytest.mark.parametrize(
    "path",
    [
        "requirements.lock",
        "requirements.txt",
        "aks-serving/requirements.txt",
        "package-lock.json",
        "package.json",
        ".ci/uv.txt",
        ".ci/node.txt",
    ],
)
def test_no_lock_names_a_place_to_fetch_from(path: str) -> None:
    text = (ROOT / path).read_text()
    # A package's own notice of its funding or its licence is no place to fetch from.
    notice = re.compile(r'^\s*"(url|license)": ')
    assert [line for line in text.splitlines() if "://" in line and not notice.match(line)] == []
    assert '"resolved"' not in text


def test_the_locked_python_is_the_declared_one() -> None:
    version = Path(ROOT / ".python-version").read_text().strip()
    assert project("pyproject.toml")["project"]["requires-python"] == f">={version}"
    assert f"python_version={version}\n" in (ROOT / "slipway").read_text()
