"""checkov reads every template, with conditions and without, finds nothing, and every exception has its reason."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.environments import EnvironmentMissingError
from tests.infra.bicep_lint import read_all
from tests.infra.checkov import report_of
from tests.infra.checkov_plain import SIDES, plain

FOLDER = Path(__file__).parents[2] / "infra" / "bicep"
_SKIP = re.compile(r"checkov:skip=(\w+)(?::(.*))?")


def reported(folder: Path) -> dict[str, Any]:
    try:
        return report_of("--directory", str(folder), "--framework", "bicep")
    except EnvironmentMissingError as error:
        pytest.skip(f"checkov cannot be had here: {error}")


UNSAFE = """param wanted bool
resource account 'Microsoft.Storage/storageAccounts@2025-08-01' = if (wanted) {
  name: 'stopen'
  location: 'westeurope'
  sku: { name: 'Standard_LRS' }
  kind: 'StorageV2'
  properties: {
    supportsHttpsTrafficOnly: false
    publicNetworkAccess: wanted ? 'Enabled' : 'Disabled'
  }
}
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the templates and of what is unsafe on purpose, in one run: checkov takes seconds to start."""
    unsafe = tmp_path_factory.mktemp("written") / "unsafe"
    unsafe.mkdir()
    (unsafe / "storage.bicep").write_text(UNSAFE)
    text = (FOLDER / "modules" / "keyvault.bicep").read_text()
    text = text.replace("enablePurgeProtection: true", "enablePurgeProtection: false")
    (unsafe / "keyvault.bicep").write_text(re.sub(r"    networkAcls: \{.*?\n    \}\n", "", text, flags=re.DOTALL))
    to = tmp_path_factory.mktemp("plain")
    for folder in (FOLDER, unsafe):
        plain(folder, to / folder.name)
    return reported(to)


def failures(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What failed: the folder, the check, the side of choices that was taken, and in words."""
    found = []
    for one in report["results"]["failed_checks"]:
        folder, side, *rest = Path(one["file_path"]).parts[1:]
        found.append((folder, one["check_id"], side, f"{'/'.join(rest)} {one['resource']}: {one['check_name']}"))
    return found


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
    assert report["results"]["parsing_errors"] == []
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["resource_count"] >= made * len(SIDES) > 0


def test_of_no_resource_it_sees_a_condition_in_place_of_its_properties(tmp_path: Path) -> None:
    plain(FOLDER, tmp_path)
    written = [path.read_text() for path in tmp_path.rglob("*.bicep")]
    assert len(written) == len(SIDES) * len([*FOLDER.rglob("*.bicep")])
    assert not [text for text in written if re.search(r"^(?:resource|module) .* if \(", text, re.MULTILINE)]
    vaults = {(tmp_path / side / "modules" / "keyvault.bicep").read_text() for side in SIDES}
    assert {re.findall(r"publicNetworkAccess: (.*)", text)[0] for text in vaults} == {"'Disabled'", "'Enabled'"}


def test_no_check_fails(report: dict[str, Any]) -> None:
    failed = [(check, said) for folder, check, _, said in failures(report) if folder == FOLDER.name]
    assert failed == []


def test_every_exception_has_a_reason_and_is_needed(report: dict[str, Any]) -> None:
    for file, check, reason in exceptions():
        assert len(reason.split()) >= 4, f"{file}: {check} is passed over without a reason"
    used = {
        (Path(one["file_path"]).name, one["check_id"])
        for one in report["results"]["skipped_checks"]
        if Path(one["file_path"]).parts[1] == FOLDER.name
    }
    assert {(file, check) for file, check, _ in exceptions()} == used


def test_what_is_unsafe_is_found_under_a_condition_and_behind_a_choice_too(report: dict[str, Any]) -> None:
    found = {(folder, check) for folder, check, _, _ in failures(report) if folder != FOLDER.name}

    assert {check for _, check in found} >= {
        "CKV_AZURE_110",  # a vault that can be purged
        "CKV_AZURE_3",  # storage by HTTP
    }
    assert {folder for folder, check in found if check in {"CKV_AZURE_59", "CKV_AZURE_189"}} == {"unsafe"}
    public = {(side, check) for folder, check, side, _ in failures(report) if folder == "unsafe"}
    assert {side for side, check in public if check == "CKV_AZURE_189"} == {"otherwise"}, "a vault that is open"
    assert {side for side, check in public if check == "CKV_AZURE_59"} == {"where"}, "storage that is open"


def test_a_check_that_dies_is_no_check_that_passes(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "modules" / "keyvault.bicep", tmp_path)
    with pytest.raises(RuntimeError, match=r"died.*CKV_AZURE_189"):
        reported(tmp_path)
