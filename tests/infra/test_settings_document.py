"""Every setting that the code reads is sampled, deployed and told of, and every one that is told of is read."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from aks_serving.settings import Settings

from local.host.__main__ import _FUNCTION_THREADS
from shared.core.logs import LOG_FORMAT

ROOT = Path(__file__).parents[2]
SETTING = re.compile(r"%?(SLIPWAY_[A-Z0-9_]+)%?")
NO_SETTINGS = {"SLIPWAY_SANDBOX"}
"""What the app writes into a child's environment by itself."""
OF_THE_HOST = {"AzureWebJobsStorage", "FUNCTIONS_WORKER_RUNTIME"}
MIB = 1024 * 1024


def read_by(*folders: str) -> set[str]:
    """The settings of ours that modules name as a text of its own, as who reads one does."""
    return {found[1] for text in _texts(folders) if (found := SETTING.fullmatch(text))} - NO_SETTINGS


def _texts(folders: tuple[str, ...]) -> Iterator[str]:
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    lines = (ROOT / document).read_text("utf-8").split(heading, 1)[1].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| ---")) + 1
    found = []
    for line in lines[first:]:
        if not line.startswith("| "):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def sample() -> dict[str, str]:
    values: dict[str, str] = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    return values


def test_the_sample_holds_each_setting_that_the_functions_app_reads_and_no_other() -> None:
    read = read_by("functions", "shared")
    assert len(read) > 15
    assert {name for name in sample() if name.startswith("SLIPWAY_")} == read


def test_one_machine_has_as_many_threads_as_an_instance() -> None:
    assert sample()["PYTHON_THREADPOOL_THREAD_COUNT"] == _FUNCTION_THREADS


def test_the_guide_tells_of_each_setting_of_the_functions_app_and_of_no_other() -> None:
    told = [name for row in rows("docs/operations.md", "## Settings of the functions app") for name in names_in(row[0])]
    assert sorted(told) == sorted(sample().keys() - OF_THE_HOST)


def test_the_servers_page_tells_of_each_of_its_settings_and_of_no_other() -> None:
    told = [name for row in rows("aks-serving/README.md", "# The model server") for name in names_in(row[0])]
    ours = [name for name in told if name.startswith("SLIPWAY_")]
    assert sorted(ours) == sorted(read_by("aks-serving/aks_serving") | {LOG_FORMAT})


def _default(text: str) -> float:
    number, _, unit = text.strip("`").partition(" ")
    return float(number) * (MIB if unit == "MiB" else 1)


def _defaults() -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows("aks-serving/README.md", "# The model server"):
        told = row[1].split(", ")
        if len(told) == len(names := names_in(row[0])):
            found |= {
                name: _default(one)
                for name, one in zip(names, told, strict=True)
                if re.match(r"`?\d+(\.\d+)?( |`?$)", one)
            }
    return found


@pytest.mark.parametrize(("name", "default"), _defaults().items())
def test_a_default_of_the_servers_page_is_the_servers(name: str, default: float) -> None:
    settings = Settings.from_env({"SLIPWAY_BLOB_URL": "https://a.invalid", "SLIPWAY_CACHE_DIR": "/cache"})
    assert getattr(settings, name.removeprefix("SLIPWAY_").lower()) == default


def test_defaults_are_read_off_the_page() -> None:
    assert _defaults() | {"SLIPWAY_POLL_S": 2.0, "SLIPWAY_MAX_QUEUE_BYTES": 256 * MIB} == _defaults()
    assert len(_defaults()) > 10
