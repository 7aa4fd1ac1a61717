"""checkov reads every template, finds nothing, and every exception from it has its reason."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.environments import EnvironmentMissingError
from tests.infra.bicep_lint import read_all
from tests.infra.checkov import report_of

FOLDER = Path(__file__).parents[2] / "infra" / "bicep"
_SKIP = re.compile(r"checkov:skip=(\w+)(?::(.*))?")


def reported(folder: Path) -> dict[str, Any]:
    try:
        return report_of("--directory", str(folder), "--framework", "bicep")
    except EnvironmentMissingError as error:
        pytest.skip(f"checkov cannot be had here: {error}")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return reported(FOLDER)


def exceptions() -> list[tuple[str, str, str]]:
    """The file, the check and the reason of each exception."""
    return [
        (path.name, found[1], found[2] or "")
        for path in sorted(FOLDER.rglob("*.bicep"))
        for found in _SKIP.finditer(path.read_text())
    ]


def test_no_template_is_passed_over(report: dict[str, Any]) -> None:
    made = sum(
        not resource.existing for template in read_all(FOLDER).values() for resource in template.resources.values()
    )
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["resource_count"] >= made > 0


def test_no_check_fails(report: dict[str, Any]) -> None:
    failed = [
        f"{Path(one['file_path']).name} {one['resource']}: {one['check_id']} {one['check_name']}"
        for one in report["results"]["failed_checks"]
    ]
    assert failed == []


def test_every_exception_has_a_reason_and_is_needed(report: dict[str, Any]) -> None:
    for file, check, reason in exceptions():
        assert len(reason.split()) >= 4, f"{file}: {check} is passed over without a reason"
    used = {(Path(one["file_path"]).name, one["check_id"]) for one in report["results"]["skipped_checks"]}
    assert {(file, check) for file, check, _ in exceptions()} == used


def test_what_is_unsafe_is_found(tmp_path: Path) -> None:
    module = tmp_path / "keyvault.bicep"
    shutil.copy(FOLDER / "modules" / "keyvault.bicep", module)
    text = module.read_text()
    module.write_text(text.replace("enablePurgeProtection: true", "enablePurgeProtection: false"))
    assert text != module.read_text()
    found = {one["check_id"] for one in reported(tmp_path)["results"]["failed_checks"]}
    assert "CKV_AZURE_110" in found
